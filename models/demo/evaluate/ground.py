"""Sky, mountains and ground of a picture, and how many horizons it has.

    ground.py           the counter's own check: true scenes, and two or three of them stacked
    ground.py train     fits ground.npz (scenes of other seeds than the check's)

A small net gives each patch of 8 x 8 px the chances of being sky, mountain or ground (lake, meadow, forest), from its colours
and its texture and those around it, never from its place.  Down each strip of the picture the best sequence sky -> mountain
-> ground is found, where starting again with sky costs a fixed price: a picture that repeats itself pays it.  The picture's
horizons are the median over its strips.
"""
import os

import numpy as np

import pictures
import small_net
from pictures import F, scenes

WEIGHTS = os.path.join(pictures.HERE, "ground.npz")
NET = None
RESTART = 10.0                      # its price; anything from 1 to 22 counted 90 stacked and single scenes right
WORK, PATCH, STRIP = 512, 8, 6      # px; px; patches across
MAX_BANDS = 6
LEAST = 0.03                        # of the height (never under 2 patches): shorter runs of sky or land are no band


def work(img):
    return pictures.resize(img, WORK) if img.shape[0] > WORK else img


def patch_means(a):
    h, w = a.shape[0] // PATCH * PATCH, a.shape[1] // PATCH * PATCH
    a = a[:h, :w]
    return a.reshape(h // PATCH, PATCH, w // PATCH, PATCH, *a.shape[2:]).mean((1, 3))


def texture(img):
    """[rows, cols, 7] of patches: RGB, spread, differences across and down, blue less red spread."""
    l = pictures.luma(img)
    dx = np.abs(np.diff(l, axis=1, append=l[:, -1:]))
    dy = np.abs(np.diff(l, axis=0, append=l[-1:]))
    mean = patch_means(img)
    var = np.maximum(patch_means(l * l) - patch_means(l) ** 2, 0)
    br = img[..., 2] - img[..., 0]
    var_br = np.maximum(patch_means(br * br) - patch_means(br) ** 2, 0)
    return np.concatenate([mean, np.sqrt(var)[..., None], patch_means(dx)[..., None], patch_means(dy)[..., None], np.sqrt(var_br)[..., None]], -1)


def shifted(f, dy):
    i = np.clip(np.arange(f.shape[0]) + dy, 0, f.shape[0] - 1)
    return f[i]


def spread_across(f, k):
    """Means over 2 k + 1 columns."""
    p = np.pad(f, ((0, 0), (k, k), (0, 0)), mode="edge")
    return np.mean([p[:, i:i + f.shape[1]] for i in range(2 * k + 1)], 0)


def features(img):
    """[rows, cols, features]"""
    f = texture(img)
    wide = spread_across(f, 3)
    parts = [f, wide] + [shifted(wide, d) for d in (-4, -2, -1, 1, 2, 4)]
    return np.concatenate(parts, -1)


def chances(img):
    """Log of the chances [rows, cols, 3]: sky, mountain, ground."""
    global NET
    if NET is None:
        NET = small_net.unpack(np.load(WEIGHTS), "ground")
    f = features(work(img))
    return small_net.log_probs(NET, f.reshape(-1, f.shape[-1])).reshape(*f.shape[:2], 3)


def best_path(score, restart):
    """score [rows, 3] -> class of each row and the band it is in."""
    rows, states = len(score), MAX_BANDS * 3
    band, kind = np.arange(states) // 3, np.arange(states) % 3
    cost = np.full((states, states), -np.inf)
    for a in range(states):
        for b in range(states):
            if band[a] == band[b] and kind[b] >= kind[a]:
                cost[a, b] = 0
            elif band[b] == band[a] + 1 and kind[b] == 0 and kind[a] > 0:
                cost[a, b] = -restart
    best = np.where(band == 0, score[0][kind], -np.inf)
    back = np.zeros((rows, states), int)
    for r in range(1, rows):
        all_ = best[:, None] + cost
        back[r] = all_.argmax(0)
        best = all_.max(0) + score[r][kind]
    path = [int(best.argmax())]
    for r in range(rows - 1, 0, -1):
        path.append(int(back[r, path[-1]]))
    path = np.array(path[::-1])
    return kind[path], band[path]


def count_bands(score, restart):
    kind, band = best_path(score, restart)
    least = max(2, LEAST * len(score))
    count = 0
    for b in range(band.max() + 1):
        land = ((band == b) & (kind > 0)).sum() >= least
        sky = ((band == b) & (kind == 0)).sum() >= least
        count += bool(land and (sky or b == 0))
    return count


def strip_scores(logs):
    """[strips, rows, 3]; the patches of a strip are no independent witnesses, so their mean counts twice, not their sum."""
    n = max(1, logs.shape[1] // STRIP)
    return [2.0 * np.maximum(part, -6).mean(1) for part in np.array_split(logs, n, axis=1)]


def count_all(logs, restart):
    return int(np.median([count_bands(s, restart) for s in strip_scores(logs)]) + 0.5)


def horizons(img, logs=None):
    logs = chances(img) if logs is None else logs
    return count_all(logs, RESTART)


def true_classes(scene, rows, cols, height, width):
    """Of the patches' centres, as `features` lays them out."""
    x = ((np.arange(cols) + 0.5) * PATCH / height).astype(F)
    y = (np.arange(rows) + 0.5) * PATCH / height
    line = np.min([scenes.ridge(scene, l, x, 64.0)[0] for l in range(scene["layers"])], 0)
    return np.where(y[:, None] < line[None], 0, np.where(y[:, None] < scene["horizon"], 1, 2))


def stack(rng, count, height):
    """Scenes on top of each other in one picture (a fault)."""
    part = height // count
    return np.concatenate([pictures.draw(scenes.sample_scene(rng, height / part), part) for _ in range(count)])


def train(count=420):
    rng = np.random.default_rng(7101)
    xs, labels, held = [], [], []
    for n in range(count):
        aspect = float(rng.choice([1.0, 1.0, 2.0]))
        s = scenes.sample_scene(rng, aspect)
        height = 256 if n % 5 else 512
        img = pictures.draw(s, height)
        if n % 2:
            img = np.clip(img * F(rng.uniform(0.92, 1.05)) + F(rng.uniform(-0.02, 0.02)), 0, 1)
            if rng.random() < 0.6:
                small = pictures.resize(img, int(height / rng.uniform(1.2, 2.0)))
                img = np.stack([np.asarray(pictures.Image.fromarray(np.ascontiguousarray(small[..., c]), "F").resize(
                    img.shape[1::-1], pictures.Image.BILINEAR), F) for c in range(3)], -1)
        f = features(img)
        y = true_classes(s, *f.shape[:2], *img.shape[:2])
        keep = rng.random(y.shape) < 512 * 512 * 0.4 / (img.shape[0] * img.shape[1])
        xs.append(f[keep])
        labels.append(y[keep])
        if n % 100 == 99:
            print(n + 1, "scenes", flush=True)
    net = small_net.train(np.concatenate(xs), np.concatenate(labels), 3, hidden=48, epochs=10, batch=512)
    np.savez_compressed(WEIGHTS, **small_net.pack({"ground": net}))


def check(count=200, seed=90201):
    """Shares of right counts: true scenes at 256, 512 and 768 px, and two or three stacked."""
    rng = np.random.default_rng(seed)
    right, wrong, patches = {}, [], []
    for n in range(count):
        s = scenes.sample_scene(rng)
        height = (256, 256, 256, 512, 768)[n % 5]
        cases = [("true", pictures.draw(s, height), 1)]
        if n % 2 == 0:
            cases.append(("two", stack(rng, 2, 512), 2))
        if n % 8 == 1:
            cases.append(("three", stack(rng, 3, 768), 3))
        for kind, img, want in cases:
            logs = chances(img)
            got = horizons(img, logs)
            right.setdefault(kind, []).append(got == want)
            if kind == "true":
                h = min(height, WORK)
                patches.append(np.mean(logs.argmax(-1) == true_classes(s, *logs.shape[:2], h, h)))
            if got != want:
                wrong.append((n, kind, height, got, s["time"], s["ground"], s["mood"], s["clouds"]))
    return {k: (float(np.mean(v)), len(v)) for k, v in right.items()}, float(np.mean(patches)), wrong


if __name__ == "__main__":
    import sys
    small_net.counter_main(sys.argv[1:], train, check, lambda patches: f"patches: {100 * patches:.1f} % right")
