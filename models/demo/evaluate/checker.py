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
import multiprocessing
import os

import numpy as np

import discs
import ground
import pictures
import plan
import program
import small_net
from pictures import F, scenes

WEIGHTS = os.path.join(pictures.HERE, "checker.npz")
HEIGHT = 256
LEARNED = ["time", "ground", "peaks", "sky", "disc", "mood"]
FINE = ["peaks", "sky"]                         # told by `more` alone
BOTH = ["mood"]                                 # by `describe` and `more`
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


def sky_residual(f, sky, disc):
    """How far the sky's patches are from what a sky without clouds can be: smooth in y, darker towards the upper corners, and a glow around
    the disc."""
    rows, cols = f.shape[:2]
    y = (np.arange(rows)[:, None] + 0.5) / rows * np.ones((1, cols))
    x = (np.arange(cols)[None] + 0.5) / rows * np.ones((rows, 1))
    keep = sky > 0.8
    corner = scenes.upper_corners(x * rows / cols - 0.5, y)
    basis = [np.ones_like(y), y, y ** 2, y ** 3, y ** 4, corner, corner * y]
    if disc:
        d = np.hypot(x - disc[0], y - disc[1])
        keep &= d > 1.2 * disc[2] + 0.7 / rows
        basis += [np.exp(-5.5 * d), y * np.exp(-5.5 * d), corner * np.exp(-5.5 * d), np.exp(-16 * d)]
    if keep.sum() < 30:
        return np.zeros(11, F)
    a = np.stack([b[keep] for b in basis], -1)
    v = f[..., :3][keep].astype(np.float64)
    rest = v - a @ np.linalg.lstsq(a, v, rcond=None)[0]
    size = np.abs(rest.mean(1))
    full = np.zeros((rows, cols))
    full[keep] = rest.mean(1)
    both = keep[:, 1:] & keep[:, :-1]
    alike = (full[:, 1:] * full[:, :-1])[both].mean() / (full[keep] ** 2).mean() if both.any() else 0.0   # clouds are wider than stars
    root = np.sqrt((rest ** 2).mean(0))
    return np.log(np.concatenate([root, np.quantile(size, [0.3, 0.5, 0.7, 0.9, 0.98]), [size.max(), np.sqrt((rest ** 2).mean())]]) + 1e-4).tolist() + [alike]


def mountain_colours(img, mountain, time):
    """The mountains' colours as parts of lit rock, haze and snow of this time of day, by thirds from the skyline down."""
    step = 4
    small = pictures.resize(img, img.shape[0] // step, img.shape[1] // step)
    mask = np.kron(mountain, np.ones((2, 2)))[:small.shape[0], :small.shape[1]] > 0.6
    small = small[:mask.shape[0], :mask.shape[1]]
    pal = dict(zip(("zenith", "middle", "horizon", "glow", "disc", "haze", "lit", "dark"), map(scenes.colour, scenes.PALETTES[time].split()[:8])))
    white = np.clip(0.55 + 0.45 * pal["horizon"] + (0.1 if time == "night" else 0), 0, 1)
    a = np.stack([pal["lit"] - pal["dark"], pal["haze"] - pal["dark"], white - pal["dark"]])
    parts = (small - pal["dark"]) @ a.T @ np.linalg.inv(a @ a.T + 2e-3 * np.eye(3))
    depth = np.cumsum(mask, 0) / np.maximum(mask.sum(0, keepdims=True), 1)
    dx = np.abs(np.diff(parts, axis=1, append=parts[:, -1:]))
    out = []
    for lo, hi in ((0, 0.34), (0.34, 0.67), (0.67, 1.01)):
        m = mask & (depth > lo) & (depth <= hi)
        if m.sum() < 8:
            out.append(np.zeros(24))
            continue
        p = parts[m]
        out.append(np.concatenate([p.mean(0), p.std(0), np.quantile(p, [0.1, 0.5, 0.9], axis=0).ravel(), dx[m].mean(0),
                                   np.quantile(small[m].min(1), [0.1, 0.5, 0.9]), np.quantile(small[m].max(1), [0.1, 0.5, 0.9])]))
    return np.concatenate(out)


def more(img, time):
    """What the nets of FINE and BOTH see."""
    if img.shape[0] != HEIGHT:
        img = pictures.resize(img, HEIGHT)
    chance, f = np.exp(ground.chances(img)), ground.texture(img)
    found = discs.find(img)
    return np.concatenate([sky_residual(f, chance[..., 0], found[0] if found else None), mountain_colours(img, chance[..., 1], time),
                           [float(time == t) for t in scenes.TIMES]]).astype(F)


def view(attribute, seen, fine):
    return fine if attribute in FINE else np.concatenate([seen, fine], -1) if attribute in BOTH else seen


def judge(img):
    """{attribute: value, or None where there is no disc}, and the number of discs."""
    global NETS
    if NETS is None:
        arrays = np.load(WEIGHTS)
        NETS = {a: small_net.unpack(arrays, a) for a in LEARNED}
    seen, found, aspect = describe(img)
    pick = lambda a, x: plan.VALUES[a][int(small_net.logits(NETS[a], x[None])[0].argmax())]
    time = pick("time", seen)
    fine = more(img, time)
    out = {a: pick(a, view(a, seen, fine)) for a in LEARNED}
    out["side"] = out["height"] = None
    if found:
        out["side"], out["height"] = plan.place(found[0][0] / aspect, found[0][1])
    else:
        out["disc"] = None
    return out, len(found)


def learn_from(k):
    s = plan.scene(k, salt=1)
    img, a = pictures.draw(s, HEIGHT), plan.attributes(s)
    return describe(img)[0], more(img, s["time"]), [plan.VALUES[n].index(a[n]) for n in LEARNED]


def train(count=2500):
    with multiprocessing.Pool(2) as pool:
        rows = pool.map(learn_from, range(count), chunksize=20)
    x, fine, labels = (np.array(v) for v in zip(*rows))
    fit(x, fine, labels)


def fit(x, fine, labels):
    nets = {}
    for i, a in enumerate(LEARNED):
        nets[a] = small_net.train(view(a, x, fine), labels[:, i], len(plan.VALUES[a]), hidden=32, epochs=60, batch=64, rate=2e-3,
                                  decay=2e-3, drop=0.1, seed=i)
    np.savez_compressed(WEIGHTS, **small_net.pack(nets))


def judge_scene(k):
    return judge(pictures.draw(plan.scene(k, salt=2), HEIGHT))[0]


def check(count=500):
    """{attribute: (share right, mean share right on shuffled captions, that by chance)}, and the judgements that were wrong."""
    asked = [plan.attributes(plan.scene(k, salt=2)) for k in range(count)]
    with multiprocessing.Pool(2) as pool:
        got = pool.map(judge_scene, range(count), chunksize=10)
    wrong = [(k, a, p[a], q[a]) for k, (p, q) in enumerate(zip(asked, got)) for a in plan.VALUES if p[a] != q[a]]
    rng = np.random.default_rng(5)
    orders = [rng.permutation(count) for _ in range(400)]  # one alone is off by 2 %, one in twenty by 4
    out = {}
    for a, values in plan.VALUES.items():
        right = np.mean([p[a] == q[a] for p, q in zip(asked, got)])
        shuffled = np.mean([[asked[i][a] == q[a] for i, q in zip(order, got)] for order in orders])
        chance = sum(np.mean([p[a] == v for p in asked]) * np.mean([q[a] == v for q in got]) for v in values)
        out[a] = (float(right), float(shuffled), float(chance))
    return out, wrong


def shares(judged):
    """{attribute: share of pictures that have what was asked for, "one disc": share with exactly one} of [(asked, found, discs)]."""
    of = {a: float(np.mean([asked[a] == found[a] for asked, found, _ in judged])) for a in plan.VALUES}
    return dict(of, **{"one disc": float(np.mean([n == 1 for *_, n in judged]))})


def tell(judged):
    for a, share in shares(judged).items():
        print(f"{a:8} {100 * share:5.1f} % of {len(judged)} pictures")
    print(f"no disc  {100 * np.mean([n == 0 for *_, n in judged]):5.1f} %")


def judge_file(k, path):
    return (plan.attributes(plan.scene(k)), *judge(pictures.read(path)))


def render(args):
    """Renders, judges, writes adherence.csv; returns [(asked, found, discs)]."""
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "1x.yaml"), "w") as f:
        f.write(plan.job(os.path.abspath(args.model), "1x", args.count, args.steps, ["base"]))
    program.call(args, args.out, "1x.yaml")
    with multiprocessing.Pool() as pool:
        judged = pool.starmap(judge_file, [(k, os.path.join(args.out, "1x", f"base.{k:03d}.png")) for k in range(args.count)], chunksize=5)
    with open(os.path.join(args.out, "adherence.csv"), "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["seed", "discs"] + list(plan.VALUES) + ["asked " + a for a in plan.VALUES] + ["seen " + a for a in plan.VALUES])
        for k, (asked, found, n) in enumerate(judged):
            w.writerow([k, n] + [int(asked[a] == found[a]) for a in plan.VALUES] + [asked[a] for a in plan.VALUES] + [found[a] or "" for a in plan.VALUES])
    return judged


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["train", "check", "render"])
    p.add_argument("scenes", nargs="?", type=int, default=500)
    program.add_options(p)
    p.add_argument("--out", default="adherence")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--steps", type=int, default=28)
    args = p.parse_args()
    if args.what == "train":
        train()
    elif args.what == "check":
        by_attribute, wrong = check(args.scenes)
        for a, (right, shuffled, chance) in by_attribute.items():
            print(f"{a:8} {100 * right:5.1f} % right; captions shuffled: {100 * shuffled:4.1f} %, by chance {100 * chance:4.1f} %")
        for row in wrong:
            print(*row)
    else:
        if not args.program:
            p.error("render needs --program")
        tell(render(args))


if __name__ == "__main__":
    main()
