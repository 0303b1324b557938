"""Trains transformer and text encoders by flow matching.

    train.py trunk [--until HH:MM] [--images N]      128 px, then 256 px, constant learning rate; for as long as you like
    train.py finish --minutes M                      a branch from the trunk: learning rate to zero, then guidance distilled

Both save their state every few minutes under a temporary name and rename it; the same command continues a killed run.
The trunk is never decayed, so that later runs go on from it; a finished branch is what export.py writes.
Everything lives in $DEMO_STATE.  Times are UTC.
"""
import argparse
import copy
import csv
import datetime
import os
import time

import numpy as np
import torch

import data
import scenes
from model import STATE, BlockCode, Model, image_ids, pack, to_float
from muon import Muon

SMALL_IMAGES = 60000          # pictures of the 128 px stage
BATCH = {128: 32, 256: 16}
EMPTY_CAPTIONS = 0.1
EMA = 0.998


def is_hidden_matrix(name, p):
    return p.dim() == 2 and "transformer_blocks." in name and "norm" not in name


class Pictures:
    """Random training batches; looks for new shards now and then."""

    def __init__(self, code):
        self.code, self.shards, self.drawn = code, [], 0

    def draw(self, rng, px, count):
        if self.drawn % 400 == 0:
            self.shards += data.load_shards(len(self.shards))
        self.drawn += 1
        pictures, captions = np.empty((count, data.SIZE, data.SIZE, 3), np.uint8), []
        for i in range(count):
            shard, scene_list = self.shards[rng.integers(len(self.shards))]
            k, flip = rng.integers(len(scene_list)), rng.random() < 0.5
            pictures[i] = shard[k][:, ::-1] if flip else shard[k]
            scene = scenes.mirror(scene_list[k]) if flip else scene_list[k]
            captions.append("" if rng.random() < EMPTY_CAPTIONS else scenes.caption(scene, rng))
        x = to_float(pictures)
        if px < data.SIZE:
            x = torch.nn.functional.avg_pool2d(x, data.SIZE // px)
        return pack(self.code.encode(x)), captions


def learning_rates(model, rate):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    muon = [p for n, p in named if is_hidden_matrix(n, p)]
    other = [p for n, p in named if not is_hidden_matrix(n, p)]
    return [Muon([dict(params=muon, base=1.0)], rate), torch.optim.AdamW([dict(params=other, base=0.8)], rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


class Run:
    def __init__(self, name, args):
        torch.manual_seed(0)
        self.name, self.path = name, f"{STATE}/{name}.pt"
        self.model = Model()
        self.params = [p for p in self.model.parameters()]
        self.ema = copy.deepcopy(self.model.state_dict())
        self.opts = learning_rates(self.model, args.rate)
        self.images, self.steps, self.extra = 0, 0, {}
        self.saved = time.time()

    def load(self, path):
        s = torch.load(path, weights_only=False)
        self.model.load_state_dict(s["model"])
        self.ema, self.images, self.steps, self.extra = s["ema"], s["images"], s["steps"], s["extra"]
        for o, d in zip(self.opts, s["opts"]):
            o.load_state_dict(d)
        print(f"{path}: {self.steps} steps, {self.images} pictures", flush=True)

    def save(self):
        s = dict(model=self.model.state_dict(), ema=self.ema, images=self.images, steps=self.steps, extra=self.extra,
                 opts=[o.state_dict() for o in self.opts])
        torch.save(s, self.path + ".tmp")
        os.replace(self.path + ".tmp", self.path)
        self.saved = time.time()

    def ema_model(self):
        m = Model()
        m.load_state_dict(self.ema)
        return m.eval().requires_grad_(False)

    def update(self, loss, rate):
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = rate * g["base"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for o in self.opts:
            o.step()
            o.zero_grad(set_to_none=True)
        decay = min(EMA, (1 + self.steps) / (10 + self.steps))
        now = self.model.state_dict()
        keys = [k for k in now if now[k].is_floating_point()]
        torch._foreach_lerp_([self.ema[k] for k in keys], [now[k] for k in keys], 1 - decay)


def times(rng, count):
    """Noise levels: logit-normal, a little towards noise; samplers shift theirs by 0.5 to 1.15."""
    return torch.sigmoid(torch.from_numpy(rng.normal(0.3, 1.1, count)).float())


def log_row(row):
    path = f"{STATE}/curve.csv"
    new = not os.path.exists(path)
    with open(path, "a", newline="") as f:
        w = csv.writer(f)
        if new:
            w.writerow(["run", "px", "seconds", "steps", "pictures", "kind", "loss", "rate"])
        w.writerow(row)


def train(run, px_of, rate_of, stop, guide_from=None):
    """Steps until stop(run) says so.  From guide_from(run) on, the target is the guided velocity of a frozen teacher."""
    rng = np.random.default_rng([run.steps, len(run.name)])
    pictures = Pictures(BlockCode())
    begun, losses, shown, teacher = time.time(), [], time.time(), None
    while not stop(run):
        px = px_of(run)
        n = px // 16
        ids = image_ids(n, n, 256 // px)
        x0, captions = pictures.draw(rng, px, BATCH[px])
        count = len(captions)
        t, noise = times(rng, count), torch.randn(x0.shape)
        xt = torch.lerp(x0, noise, t[:, None, None])
        target, guidance = noise - x0, torch.ones(count)
        guided = guide_from is not None and guide_from(run)
        if guided:
            if teacher is None:
                if "teacher" not in run.extra:
                    run.extra["teacher"] = {k: v.clone() for k, v in run.ema.items()}
                teacher = Model()
                teacher.load_state_dict(run.extra["teacher"])
                teacher.eval().requires_grad_(False)
            guidance = torch.from_numpy(rng.uniform(1, 5, count)).float()
            with torch.no_grad():
                one = torch.ones(count)
                v1 = teacher(xt, t, one, teacher.encode(captions), ids)
                v0 = teacher(xt, t, one, teacher.encode([""] * count), ids)
                target = v0 + guidance[:, None, None] * (v1 - v0)
        loss = ((run.model(xt, t, guidance, run.model.encode(captions), ids) - target) ** 2).mean()
        rate = rate_of(run) * min(1.0, (run.steps + 1) / 100)
        run.update(loss, rate)
        run.steps += 1
        run.images += count
        losses.append(loss.item())
        if len(losses) == 50:
            log_row([run.name, px, f"{time.time() - begun:.0f}", run.steps, run.images, "guided" if guided else "flow", f"{np.mean(losses):.4f}", f"{rate:.2e}"])
            print(f"{run.name} {px} px {run.steps} steps {run.images} pictures loss {np.mean(losses):.4f} rate {rate:.1e}"
                  f" {50 * count / (time.time() - shown):.1f}/s", flush=True)
            losses, shown = [], time.time()
        if time.time() - run.saved > 240:
            run.save()
    run.save()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("kind", choices=["trunk", "finish"])
    a.add_argument("--until", default="", help="trunk: stop at this time, HH:MM")
    a.add_argument("--images", type=int, default=10 ** 9, help="trunk: stop after this many pictures")
    a.add_argument("--minutes", type=float, default=30, help="finish: length of the branch")
    a.add_argument("--rate", type=float, default=2e-3)
    a.add_argument("--threads", type=int, default=2)
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    if not os.path.exists(f"{STATE}/blocks.npz"):
        BlockCode.fit(to_float(np.concatenate([s[0][:60] for s in data.load_shards()[:8]])))
    run = Run(args.kind, args)
    if os.path.exists(run.path):
        run.load(run.path)
    if args.kind == "trunk":
        end = None
        if args.until:
            now = datetime.datetime.utcnow()
            end = datetime.datetime.combine(now.date(), datetime.time(*map(int, args.until.split(":"))))
            end += datetime.timedelta(days=end < now)
        train(run, lambda r: 128 if r.images < SMALL_IMAGES else 256,
              lambda r: args.rate * (1.0 if r.images < SMALL_IMAGES else 0.6),
              lambda r: r.images >= args.images or (end is not None and datetime.datetime.utcnow() > end))
        return
    if not run.extra.get("branched"):
        run.load(f"{STATE}/trunk.pt")
        run.extra = dict(branched=True, spent=0.0)
    before, begun = run.extra["spent"], time.time()

    def part(r):                       # 0 ... 1 through the branch, over restarts
        r.extra["spent"] = before + time.time() - begun
        return r.extra["spent"] / (60 * args.minutes)

    train(run, lambda r: 256, lambda r: 0.6 * args.rate * max(0.01, 1 - part(r)), lambda r: part(r) >= 1, lambda r: part(r) > 0.6)


if __name__ == "__main__":
    main()
