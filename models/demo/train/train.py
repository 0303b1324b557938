"""Trains transformer and text encoders by flow matching.

    train.py trunk [--until HH:MM] [--images N]      half-size pictures, then whole ones, constant learning rate; for as long as you like
    train.py finish --minutes M                      a branch from the trunk: learning rate to zero

Both save their state every few minutes under a temporary name and rename it; the same command continues a killed run.
The trunk is never decayed, so that later runs go on from it; a finished branch is what export.py writes.
Everything lives in $DEMO_STATE.  Times are UTC.

Guidance is learned on the way, without a second network: where a picture's guidance g is not 1, the target is the flow plus g - 1 times
the difference that the averaged weights see between its caption and none. Its expectation is the velocity of classifier-free guidance.
"""
import argparse
import copy
import csv
import datetime
import os
import time

import numpy as np
import torch
from torch import multiprocessing

import attention
import data
import scenes
from model import STATE, Model, count_singles, image_ids, pack
from muon import Muon

BATCH = {128: 64, 256: 32}
PART = {128: 16, 256: 8}       # pictures that one process takes at a time
CACHE = 64                     # compiled forms: shapes of pictures, with and without gradients
EMPTY_CAPTIONS = 0.1
MOST_GUIDANCE = 4.0
DISC_WEIGHT, PLACE_WEIGHT = 4.0, 8.0
SHOWN = {128: 0.4, 256: 0.6}   # noise levels under which a disc's own place is beyond doubt: at 256 px it is four times as many samples
PROBE_WEIGHT, PROBED = 0.5, 4          # one picture in four, the noisiest
EMA = {"trunk": 0.998, "finish": 0.985}        # a branch is short, and its falling rate averages too


def is_hidden_matrix(name, p):
    return p.dim() == 2 and "transformer_blocks." in name and "norm" not in name


class Pictures:
    """Random training pictures as latents, all of one shape; looks for new shards now and then."""

    def __init__(self):
        self.latents, self.scenes, self.drawn = {128: [], 256: []}, [], 0

    def look(self):
        for px, have in self.latents.items():
            for k in data.shards(f"{px}.npy", len(have)):
                have.append(np.load(f"{STATE}/data/{k:04d}.{px}.npy", mmap_mode="r"))
        self.scenes += [data.load_scenes(k) for k in range(len(self.scenes), max(map(len, self.latents.values())))]

    def draw(self, rng, px, count):
        """Packed latents, captions, the discs and the places that the captions give for them as inside takes them, height and width in tokens.
        Parts of one batch may differ in shape."""
        if self.drawn % 1000 == 0:
            self.look()
        self.drawn += 1
        have = range(len(self.latents[px]))
        first = rng.integers(len(have))
        alike = [k for k in have if data.shape_of(k) == data.shape_of(first)]
        z, captions, discs, places = [], [], [], []
        for _ in range(count):
            k = alike[rng.integers(len(alike))]
            n, flip = rng.integers(len(self.scenes[k])), int(rng.random() < 0.5)
            z.append(self.latents[px][k][n, flip])
            scene = scenes.mirror(self.scenes[k][n]) if flip else self.scenes[k][n]
            discs.append([v / scene["aspect"] for v in (scene["sun"][0], scene["radius"])] + [scene["sun"][1], scene["radius"]])
            captions.append("" if rng.random() < EMPTY_CAPTIONS else scenes.caption(scene, rng))
            places.append(scenes.place_told(captions[-1], scene) or (-1, 0, -1, 0))
        z = torch.from_numpy(np.stack(z)).float()
        return pack(z), captions, torch.tensor(discs, dtype=torch.float32), torch.tensor(places, dtype=torch.float32), z.shape[2] // 2, z.shape[3] // 2


def noise_levels(u):
    """Times for u in [0, 1]. Four tenths are logit-normal, a little towards noise (samplers shift theirs by 0.5 to 1.15). That alone has
    2 % above 0.93, where a render's first six steps decide that there is one disc, and where, for good: the rest is even in logit from 0.82 on."""
    body = 0.3 + 1.1 * torch.special.ndtri((u / 0.4).clamp(1e-4, 1 - 1e-4))
    early = 1.5 + (5.0 - 1.5) * (u - 0.4) / 0.6
    return torch.sigmoid(torch.where(u < 0.4, body, early))


def inside(boxes, h, w):
    """[B, h w] 1 for the tokens that touch the boxes [B, 4]: x, half width, y, half height, as parts of the picture."""
    x, y = (torch.arange(w) + 0.5)[None], (torch.arange(h) + 0.5)[None]
    across = (x - boxes[:, :1] * w).abs() < boxes[:, 1:2] * w + 0.5
    down = (y - boxes[:, 2:3] * h).abs() < boxes[:, 3:4] * h + 0.5
    return (down[:, :, None] & across[:, None]).flatten(1).float()


class Gradients:
    """The gradient of one batch, by several processes with one thread each.

    A batch is cut into parts; whoever is free takes the next one, so a process that gets little of its core holds nobody up.
    Parameters lie in shared memory; each helper adds up the gradients of its parts and leaves them in a buffer of its own.
    A part's numbers depend on (step, part) alone, not on who computes it."""

    def __init__(self, model, average, helpers):
        self.model, self.average, self.pictures = model.share_memory(), average.share_memory(), Pictures()
        ctx = multiprocessing.get_context("spawn")                  # a forked process cannot compile
        self.params = list(model.parameters())
        self.job = ctx.Array("i", [0, 0, 0])                      # step, px, guided
        self.next = ctx.Value("i", 0)
        self.losses, self.probes = torch.zeros(64).share_memory_(), torch.zeros(64).share_memory_()
        self.go = [ctx.Semaphore(0) for _ in range(helpers)]
        self.done = [ctx.Semaphore(0) for _ in range(helpers)]
        self.left = [torch.zeros(sum(p.numel() for p in self.params)).share_memory_() for _ in range(helpers)]
        self.parent = os.getpid()
        for i in range(helpers):
            ctx.Process(target=self.help, args=(i,), daemon=True).start()      # it gets this object; parameters and buffers stay shared
        self.compile()

    def help(self, i):
        torch.set_num_threads(1)
        torch._dynamo.config.cache_size_limit = CACHE
        self.compile()
        while True:
            while not self.go[i].acquire(timeout=5):
                if os.getppid() != self.parent:
                    return
            self.take_parts()
            flat = self.left[i]
            at = 0
            for p in self.params:
                part = flat[at:at + p.numel()].view_as(p)
                if p.grad is None:
                    part.zero_()
                else:
                    part.copy_(p.grad)
                at += p.numel()
                p.grad = None
            self.done[i].release()

    def compile(self):
        """For each shape once, in each process: a minute that more than comes back."""
        attention.install()
        for m in (self.model, self.average):
            m.transformer.compile(dynamic=False)

    def take_parts(self):
        step, px, guided = self.job[:]
        parts = BATCH[px] // PART[px]
        while True:
            with self.next.get_lock():
                k = self.next.value
                self.next.value += 1
            if k >= parts:
                return
            weighted, loss, probe = self.part_loss(np.random.default_rng([5, step, px, guided, k]), px, guided, k, parts)
            (weighted / parts).backward()
            self.losses[k], self.probes[k] = loss.detach(), probe.detach()

    def part_loss(self, rng, px, guided, k, parts):
        """What is minimised, the plain mean of squares, and the probe's loss."""
        count = PART[px]
        x0, captions, discs, places, h, w = self.pictures.draw(rng, px, count)
        ids = image_ids(h, w, 256 // px)
        # One noise level from each equal share of the batch.
        u = torch.from_numpy((np.arange(count) * parts + k + rng.random(count)) / (count * parts))
        t = noise_levels(u).float()
        noise = torch.from_numpy(rng.standard_normal(x0.shape, np.float32))
        xt = torch.lerp(x0, noise, t[:, None, None])
        target, guidance = noise - x0, torch.ones(count)
        with torch.autocast("cpu", torch.bfloat16):
            if guided:                                            # every other picture
                guidance[1::2] = torch.from_numpy(rng.uniform(1, MOST_GUIDANCE, count // 2)).float()
                asked = captions[1::2]
                with torch.no_grad():
                    both = self.average(xt[1::2].repeat(2, 1, 1), t[1::2].repeat(2), torch.ones(count), self.average.encode(asked + [""] * len(asked)), ids).float()
                target[1::2] += (guidance[1::2] - 1)[:, None, None] * (both[:count // 2] - both[count // 2:])
            text = self.model.encode(captions)
            v = self.model(xt, t, guidance, text, ids)
            late = slice(count - count // PROBED, count)          # the noisiest ones
            seen = self.model.places(xt[late], t[late], [e[late] for e in text], ids).float()
        # A disc is few tokens. Where the caption lets it be, all tokens count more: that leaves what is to be learned as it is. Its own tokens
        # alone do so only once the noise shows exactly where it is: before that, every place where it might be would be given one.
        square = ((v.float() - target) ** 2).mean(-1)
        place, disc = inside(places, h, w), inside(discs, h, w)
        weight = 1 + PLACE_WEIGHT * place + DISC_WEIGHT * (t < SHOWN[px])[:, None] * disc
        told = torch.stack([place, disc], -1)[late]
        known = torch.stack([places[late, 0] >= 0, torch.ones(count // PROBED, dtype=torch.bool)], -1)[:, None]
        probe = (torch.nn.functional.binary_cross_entropy_with_logits(seen, told, reduction="none") * known).mean()
        return (square * weight).mean() + PROBE_WEIGHT * probe, square.mean(), probe

    def batch(self, step, px, guided):
        """Leaves the gradient in the parameters; returns the mean of squares and the probe's loss."""
        self.job[:] = [step, px, guided]
        self.next.value = 0
        for s in self.go:
            s.release()
        self.take_parts()
        for s, flat in zip(self.done, self.left):
            s.acquire()
            at = 0
            for p in self.params:
                part = flat[at:at + p.numel()].view_as(p)
                p.grad = part.clone() if p.grad is None else p.grad.add_(part)
                at += p.numel()
        return [float(v[:BATCH[px] // PART[px]].mean()) for v in (self.losses, self.probes)]


def learning_rates(model, rate):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    muon = [p for n, p in named if is_hidden_matrix(n, p)]
    text = [p for n, p in named if not n.startswith("transformer.")]
    other = [p for n, p in named if n.startswith("transformer.") and not is_hidden_matrix(n, p)]
    return [Muon([dict(params=muon, base=1.0)], rate),
            torch.optim.AdamW([dict(params=other, base=0.8), dict(params=text, base=0.4)], rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


class Run:
    def __init__(self, name, args):
        torch.manual_seed(0)
        self.name, self.path = name, f"{STATE}/{name}.pt"
        self.model = Model(args.singles)
        self.params = [p for p in self.model.parameters()]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.opts = learning_rates(self.model, args.rate)
        self.images, self.steps, self.extra = 0, 0, {}
        self.saved = time.time()

    def load(self, path):
        """Another depth than that of the saved run is taken over: a new block starts as the identity, the optimizers start anew."""
        s = torch.load(path, weights_only=False)
        self.images, self.steps, self.extra = s["images"], s["steps"], s["extra"]
        if count_singles(s["model"]) == count_singles(self.model.state_dict()):
            self.model.load_state_dict(s["model"])
            self.average.load_state_dict(s["ema"])
            for o, d in zip(self.opts, s["opts"]):
                o.load_state_dict(d)
        else:
            for to, weights in ((self.average.state_dict(), s["ema"]), (self.model.state_dict(), s["model"])):
                for k, v in weights.items():
                    if k in to:
                        to[k].copy_(v)
        print(f"{path}: {self.steps} steps, {self.images} pictures", flush=True)

    def learn_places(self, rate, steps=300):
        """Before any picture: which tokens a caption lets the disc be in, from noise alone. A new model has it right for 999 of 1000 captions
        after 200 steps; learned by flow matching alone it takes hundreds of thousands of pictures."""
        pictures, losses = Pictures(), []
        for step in range(steps):
            rng = np.random.default_rng([6, step])
            x0, captions, _, places, h, w = pictures.draw(rng, 128, BATCH[128] // 2)
            told = places[:, 0] >= 0
            with torch.autocast("cpu", torch.bfloat16):
                x = torch.from_numpy(rng.standard_normal(x0.shape, np.float32))
                seen = self.model.places(x, torch.ones(len(x)), self.model.encode(captions), image_ids(h, w, 2))[..., 0].float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(seen[told], inside(places, h, w)[told])
            loss.backward()
            self.update(rate * min(1.0, (step + 1) / 100))
            losses.append(float(loss))
            if step % 50 == 49:
                print(f"places: {step + 1} steps, loss {np.mean(losses[-50:]):.4f}", flush=True)
        self.average.load_state_dict(self.model.state_dict())

    def save(self):
        s = dict(model=self.model.state_dict(), ema=self.average.state_dict(), images=self.images, steps=self.steps, extra=self.extra,
                 opts=[o.state_dict() for o in self.opts])
        torch.save(s, self.path + ".tmp")
        os.replace(self.path + ".tmp", self.path)
        self.saved = time.time()

    def update(self, rate):
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = rate * g["base"]
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for o in self.opts:
            o.step()
            o.zero_grad(set_to_none=True)
        decay = min(EMA[self.name], (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.params], 1 - decay)


def log_row(row):
    path = f"{STATE}/curve.csv"
    new = not os.path.exists(path)
    with open(path, "a", newline="") as f:
        w = csv.writer(f)
        if new:
            w.writerow(["run", "px", "seconds", "steps", "pictures", "kind", "loss", "rate"])
        w.writerow(row)


def train(run, workers, px_of, rate_of, stop, guided_of):
    """Steps until stop(run) says so."""
    gradients = Gradients(run.model, run.average, workers - 1)
    begun, losses, shown = time.time(), [], time.time()
    while not stop(run):
        px, guided = px_of(run), guided_of(run)
        count = BATCH[px]
        losses.append(gradients.batch(run.steps, px, guided))
        rate = rate_of(run) * min(1.0, (run.steps + 1) / 100)
        run.update(rate)
        run.steps += 1
        run.images += count
        if len(losses) == 50:
            loss, probe = np.mean(losses, 0)
            log_row([run.name, px, f"{time.time() - begun:.0f}", run.steps, run.images, "guided" if guided else "flow", f"{loss:.4f}", f"{rate:.2e}"])
            print(f"{run.name} {px} px {run.steps} steps {run.images} pictures loss {loss:.4f} probe {probe:.4f} rate {rate:.1e}"
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
    a.add_argument("--small", type=int, default=200000, help="trunk: pictures of the half-size stage")
    a.add_argument("--guide", type=int, default=150000, help="pictures before guidance is learned")
    a.add_argument("--singles", type=int, default=3, help="single blocks; more than the saved run has: it grows")
    a.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    args = a.parse_args()
    torch.set_num_threads(1)
    torch._dynamo.config.cache_size_limit = CACHE
    run = Run(args.kind, args)
    if os.path.exists(run.path):
        run.load(run.path)
    elif args.kind == "trunk":
        run.learn_places(args.rate)
    if args.kind == "trunk":
        end = None
        if args.until:
            now = datetime.datetime.utcnow()
            end = datetime.datetime.combine(now.date(), datetime.time(*map(int, args.until.split(":"))))
            end += datetime.timedelta(days=end < now)
        train(run, args.workers, lambda r: 128 if r.images < args.small else 256,
              lambda r: args.rate * (1.0 if r.images < args.small else 0.6),
              lambda r: r.images >= args.images or (end is not None and datetime.datetime.utcnow() > end), lambda r: r.images >= args.guide)
        return
    if not run.extra.get("branched"):
        run.load(f"{STATE}/trunk.pt")
        run.extra = dict(branched=True, spent=0.0)
    before, begun = run.extra["spent"], time.time()

    def part(r):                       # 0 ... 1 through the branch, over restarts
        r.extra["spent"] = before + time.time() - begun
        return r.extra["spent"] / (60 * args.minutes)

    train(run, args.workers, lambda r: 256, lambda r: 0.6 * args.rate * min(1.0, max(0.01, (1 - part(r)) / 0.7)), lambda r: part(r) >= 1, lambda r: r.images >= args.guide)


if __name__ == "__main__":
    main()
