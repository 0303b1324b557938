"""Does a picture show what its prompt asks for?  Attribute by attribute: time of day, ground, peaks, sky, kind of disc, its side and
height, mood.

    checker.py train                        fits checker.npz (scenes of other seeds than the check's); needs discs.npz, ground.npz
    checker.py check [scenes]               of the checker itself: right on true scenes (500), and on their captions shuffled
    checker.py render --program PATH --model DIR --out DIR [--count 200]
                                            renders pictures of full prompts at the training size, share with each attribute

A picture is told by statistics of colour and texture in what ground.py finds to be sky, mountains and ground; a small net per
attribute reads them.  Side and height are those of the disc that discs.py is surest of; without one they, and the kind, are
missing.
"""
import argparse
import csv
import os
import subprocess
import sys

import numpy as np

import discs
import ground
import pictures
import plan
import small_net
from pictures import F

WEIGHTS = os.path.join(pictures.HERE, "checker.npz")
HEIGHT = 256
LEARNED = ["time", "ground", "peaks", "sky", "disc", "mood"]
BINS = np.linspace(0, 1, 11)
NETS = None


def weighted(f, w):
    """Mean and spread of f [rows, cols, n] under w [rows, cols]."""
    total = w.sum() + 1e-3
    mean = (f * w[..., None]).sum((0, 1)) / total
    return mean, np.sqrt(np.maximum((f * f * w[..., None]).sum((0, 1)) / total - mean * mean, 0))


def histogram(v, w):
    h = np.histogram(v, BINS, weights=w)[0]
    return h / (w.sum() + 1e-3)


def describe(img):
    """What the nets see of a picture, and its discs."""
    if img.shape[0] != HEIGHT:
        img = pictures.resize(img, HEIGHT)
    logs = ground.chances(img)
    f = ground.texture(img)
    chance = np.exp(logs)
    y = np.arange(f.shape[0])[:, None] / f.shape[0] * np.ones((1, f.shape[1]))
    parts = []
    luma = pictures.luma(f[..., :3])
    least = f[..., :3].min(-1)
    for c in range(3):
        w = chance[..., c]
        mean, spread = weighted(f, w)
        row = (w * y).sum() / (w.sum() + 1e-3)
        parts += [[w.mean(), row], mean, spread, weighted(f, w * (y < row))[0], weighted(f, w * (y >= row))[0],
                  histogram(luma, w), histogram(least, w), histogram(np.clip(f[..., 2] - f[..., 0] + 0.5, 0, 1), w),
                  histogram(np.clip(f[..., 3] * 6, 0, 1), w), histogram(np.clip(f[..., 4] * 12, 0, 1), w), histogram(np.clip(f[..., 5] * 12, 0, 1), w)]
        for lag in (1, 4):
            both = w[:, lag:] * w[:, :-lag]
            parts.append([(np.abs(luma[:, lag:] - luma[:, :-lag]) * both).sum() / (both.sum() + 1e-3)])
    found = discs.find(img)
    colour = [-1.0, -1.0, -1.0]
    if found:
        x, y0, r = (v * img.shape[0] for v in found[0])
        yy, xx = np.ogrid[:img.shape[0], :img.shape[1]]
        inside = (yy + 0.5 - y0) ** 2 + (xx + 0.5 - x) ** 2 < (0.6 * r) ** 2
        if inside.any():
            colour = img[inside].mean(0)
    return np.concatenate([np.asarray(p, F).ravel() for p in parts] + [np.asarray(colour, F)]), found, img.shape[1] / img.shape[0]


def judge(img):
    """{attribute: value, or None where there is no disc}, and the number of discs."""
    global NETS
    if NETS is None:
        arrays = np.load(WEIGHTS)
        NETS = {a: small_net.unpack(arrays, a) for a in LEARNED}
    seen, found, aspect = describe(img)
    out = {a: plan.VALUES[a][int(small_net.logits(NETS[a], seen[None])[0].argmax())] for a in LEARNED}
    out["side"] = out["height"] = None
    if found:
        x, y = found[0][0] / aspect, found[0][1]
        out["side"] = "left" if x < 0.36 else "right" if x > 0.64 else "center"
        out["height"] = "high" if y < 0.18 else "low" if y > 0.30 else "middle"
    else:
        out["disc"] = None
    return out, len(found)


def train(count=1000):
    cache = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"checker-features-{count}.npz")
    if os.path.exists(cache):
        x, labels = (np.load(cache)[k] for k in ("x", "labels"))
    else:
        xs, labels = [], []
        for k in range(count):
            s = plan.scene(k, salt=1)
            xs.append(describe(pictures.draw(s, HEIGHT))[0])
            a = plan.attributes(s)
            labels.append([plan.VALUES[n].index(a[n]) for n in LEARNED])
            if k % 100 == 99:
                print(k + 1, "scenes", flush=True)
        x, labels = np.array(xs), np.array(labels)
        np.savez(cache, x=x, labels=labels)
    nets = {}
    for i, a in enumerate(LEARNED):
        nets[a] = small_net.train(x, labels[:, i], len(plan.VALUES[a]), hidden=32, epochs=60, batch=64, rate=2e-3, decay=2e-3, drop=0.1, seed=i)
    np.savez_compressed(WEIGHTS, **small_net.pack(nets))


def check(count=500):
    """{attribute: (share right, share right on shuffled captions, that by chance)}, and the judgements that were wrong."""
    asked, got, wrong = [], [], []
    for k in range(count):
        s = plan.scene(k, salt=2)
        asked.append(plan.attributes(s))
        got.append(judge(pictures.draw(s, HEIGHT))[0])
        wrong += [(k, a, asked[-1][a], got[-1][a]) for a in plan.VALUES if asked[-1][a] != got[-1][a]]
    order = np.random.default_rng(5).permutation(count)
    out = {}
    for a, values in plan.VALUES.items():
        right = np.mean([p[a] == q[a] for p, q in zip(asked, got)])
        shuffled = np.mean([asked[i][a] == q[a] for i, q in zip(order, got)])
        chance = sum(np.mean([p[a] == v for p in asked]) * np.mean([q[a] == v for q in got]) for v in values)
        out[a] = (float(right), float(shuffled), float(chance))
    return out, wrong


def render(args):
    """Renders, judges, writes adherence.csv; returns {attribute: share} and the share with one disc."""
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "1x.yaml"), "w") as f:
        f.write(plan.job(os.path.abspath(args.model), "1x", args.count, args.steps, ["base"]))
    done = subprocess.run([os.path.abspath(args.program), "--quiet", *(["--threads", str(args.threads)] if args.threads else []), "1x.yaml"], cwd=args.out)
    if done.returncode != 0:
        sys.exit(f"{args.program}: exit code {done.returncode}")
    rows = []
    for k in range(args.count):
        asked = plan.attributes(plan.scene(k))
        got, n = judge(pictures.read(os.path.join(args.out, "1x", f"base.{k:03d}.png")))
        rows.append([k, n] + [int(asked[a] == got[a]) for a in plan.VALUES] + [asked[a] for a in plan.VALUES] + [got[a] or "" for a in plan.VALUES])
    with open(os.path.join(args.out, "adherence.csv"), "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["seed", "discs"] + list(plan.VALUES) + ["asked " + a for a in plan.VALUES] + ["seen " + a for a in plan.VALUES])
        w.writerows(rows)
    shares = {a: float(np.mean([r[2 + i] for r in rows])) for i, a in enumerate(plan.VALUES)}
    return shares, float(np.mean([r[1] == 1 for r in rows]))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["train", "check", "render"])
    p.add_argument("scenes", nargs="?", type=int, default=500)
    p.add_argument("--program")
    p.add_argument("--model", default=os.path.join(pictures.HERE, ".."))
    p.add_argument("--out", default="adherence")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--steps", type=int, default=28)
    p.add_argument("--threads", type=int, default=0)
    args = p.parse_args()
    if args.what == "train":
        train()
    elif args.what == "check":
        shares, wrong = check(args.scenes)
        for a, (right, shuffled, chance) in shares.items():
            print(f"{a:8} {100 * right:5.1f} % right; captions shuffled: {100 * shuffled:4.1f} %, by chance {100 * chance:4.1f} %")
        for row in wrong:
            print(*row)
    else:
        if not args.program:
            p.error("render needs --program")
        shares, one = render(args)
        for a, share in shares.items():
            print(f"{a:8} {100 * share:5.1f} % of {args.count} pictures")
        print(f"one disc {100 * one:5.1f} %")


if __name__ == "__main__":
    main()
