"""Suns and moons in a picture: bright round patches with a sharp edge all around.

    discs.py            the counter's own check: true scenes, and scenes with two discs or none
    discs.py train      fits discs.npz (scenes of other seeds than the check's)

In every palette the smallest of R, G, B is larger in the disc than around it; clouds, snow and its reflections can be as
bright, but are not round.  Candidates come from a matched filter at all radii (inner mean less ring mean); a small net looks
at each along 32 rays from its centre.  It learns from true scenes that are also blurred and stretched, because a model's
discs are not as round.
"""
import os

import numpy as np

import pictures
import small_net
from pictures import F, scenes

WEIGHTS = os.path.join(pictures.HERE, "discs.npz")
NET = None
RAYS = 32
WORK = 512                          # px: taller pictures are reduced to it
RADII = (0.024, 0.065)              # of the picture's height: scenes have 0.032 to 0.056
CONTRAST = 0.05                     # of the smallest channel, inner mean less ring


def mean_filters(shape, radius):
    """Spectra of the disc's and the ring's means."""
    y = np.minimum(np.arange(shape[0]), shape[0] - np.arange(shape[0]))[:, None].astype(F)
    x = np.minimum(np.arange(shape[1]), shape[1] - np.arange(shape[1]))[None, :].astype(F)
    d = np.sqrt(x * x + y * y)
    out = []
    for mask in (d <= 0.85 * radius, (d >= 1.25 * radius) & (d <= 1.6 * radius)):
        m = mask.astype(F)
        out.append(np.fft.rfft2(m / m.sum()))
    return out


def contrast(w, radius):
    pad = int(np.ceil(1.7 * radius))
    p = np.pad(w, pad, mode="edge")
    spectrum = np.fft.rfft2(p)
    inner, ring = mean_filters(p.shape, radius)
    c = np.fft.irfft2(spectrum * (inner - ring), p.shape)
    return c[pad:-pad, pad:-pad]


def sample(w, y, x):
    """Bilinear, edges repeated."""
    y, x = np.clip(y, 0, w.shape[0] - 1), np.clip(x, 0, w.shape[1] - 1)
    i, j = np.minimum(y.astype(int), w.shape[0] - 2), np.minimum(x.astype(int), w.shape[1] - 2)
    fy, fx = y - i, x - j
    return (w[i, j] * (1 - fy) * (1 - fx) + w[i + 1, j] * fy * (1 - fx) + w[i, j + 1] * (1 - fy) * fx + w[i + 1, j + 1] * fy * fx)


def look(w, img, y, x, radius):
    """Centre and radius of a candidate and what the net sees: edges and rings along the rays, and colours.  Looks twice, the
    second time from the first's centre."""
    angle = np.arange(RAYS) * (2 * np.pi / RAYS)
    rho = np.linspace(0, 1.9, 39)
    for _ in range(2):
        d = rho[:, None] * radius
        yy, xx = y + d * np.sin(angle), x + d * np.cos(angle)
        v = sample(w, yy, xx)
        inner = np.median(v[rho < 0.6])
        outer = v[(rho > 1.35) & (rho < 1.75)].mean(0)
        below = v < (inner + outer) / 2
        first = np.where(below.any(0), below.argmax(0), len(rho) - 1)
        edge = rho[first]
        r = max(float(np.median(edge)), 0.3)
        # the centre moves by the first harmonic of the edge
        e = np.clip(edge, 0.6 * r, 1.4 * r) * radius
        at = (y, x, radius)
        y, x = y + (e * np.sin(angle)).mean(), x + (e * np.cos(angle)).mean()
        radius = float(np.clip(r, 0.5, 1.6) * radius)
    step = max(inner - outer.mean(), 1e-3)
    steep = (v[np.maximum(first - 4, 0), np.arange(RAYS)] - v[np.minimum(first + 3, len(rho) - 1), np.arange(RAYS)]) / step
    rings = (v - outer.mean()) / step
    colours = []
    for c in range(3):
        vc = sample(img[..., c], yy, xx)
        colours += [np.median(vc[rho < 0.6]), np.median(vc[(rho > 1.35) & (rho < 1.75)])]
    seen = np.concatenate([
        rings.mean(1)[::3], rings.std(1)[::3], np.sort(edge / r)[::4], np.sort(steep)[::4],
        [np.mean(np.abs(edge - r) < 0.15 * r), np.mean(np.abs(edge - r) < 0.25 * r), np.mean(inner - outer > CONTRAST)],
        np.sort(outer - outer.mean())[::6], [inner, outer.mean(), step, np.std(v[rho < 0.6 * r])], colours]).astype(F)
    return at, radius, seen


def candidates(img):
    """List of (x, y, radius) in units of the height, and what the net sees of each [n, features]; strongest first."""
    h = img.shape[0]
    if h > WORK:
        img = pictures.resize(img, WORK)
    w = img.min(-1)
    h = w.shape[0]
    radii = [RADII[0] * h]
    while radii[-1] < RADII[1] * h:
        radii.append(radii[-1] * 1.22)
    stack = np.stack([contrast(w, r) for r in radii])
    best, which = stack.max(0), stack.argmax(0)
    yy, xx = np.ogrid[:h, :w.shape[1]]
    places, seen = [], []
    for _ in range(int(16 * max(1, w.shape[1] / h))):
        i, j = np.unravel_index(best.argmax(), best.shape)
        if best[i, j] < CONTRAST:
            break
        r = radii[which[i, j]]
        (y, x, _), radius, what = look(w, img, float(i), float(j), r)
        if 0.7 * RADII[0] * h < radius < 1.2 * RADII[1] * h:
            places.append(((x + 0.5) / h, (y + 0.5) / h, radius / h))
            seen.append(what)
        best[(yy - i) ** 2 + (xx - j) ** 2 < (1.3 * r) ** 2] = 0
    return places, np.array(seen, F) if seen else np.zeros((0, 0), F)


def find(img):
    """List of (x, y, radius) in units of the picture's height, surest first."""
    global NET
    if NET is None:
        NET = small_net.unpack(np.load(WEIGHTS), "disc")
    places, seen = candidates(img)
    if not places:
        return []
    z = small_net.logits(NET, seen)
    sure, found = z[:, 1] - z[:, 0], []
    for k in np.argsort(-sure):
        x, y, r = places[k]
        if sure[k] > 0 and all(np.hypot(f[0] - x, f[1] - y) > 1.3 * max(r, f[2]) for f in found):
            found.append(places[k])
    return found


def with_second(scene, rng, height):
    """A true picture with another disc, as large, in its sky (a fault)."""
    s, r = scene, scene["radius"]
    img = scenes.render(s, height)
    px = 1.0 / height
    x, y = ((np.arange(img.shape[1]) + 0.5) * px).astype(F), ((np.arange(height) + 0.5) * px).astype(F)
    line = np.min([scenes.ridge(s, l, x, 128.0)[0] for l in range(s["layers"])], 0)
    for _ in range(1000):
        sx = float(rng.uniform(1.3 * r, s["aspect"] - 1.3 * r))
        floor = float(line[np.abs(x - sx) < 1.5 * r].min())
        if floor < 2.9 * r:
            continue
        sy = float(rng.uniform(1.3 * r, floor - 1.4 * r))
        if np.hypot(sx - s["sun"][0], sy - s["sun"][1]) > 4 * r:
            break
    else:
        return None
    dist = np.sqrt((x[None, :] - F(sx)) ** 2 + (y[:, None] - F(sy)) ** 2)
    glow = scenes.GLOW[s["time"]]
    names = scenes.PALETTES[s["time"]].split()
    img = scenes.mix(img, scenes.colour(names[3]), np.clip(np.exp(-dist * F(16)) * F(0.6 * glow), 0, 1) * (dist > r))
    img = scenes.mix(img, np.broadcast_to(scenes.colour(names[4]), img.shape), np.clip((F(r) - dist) / F(px) + F(0.5), 0, 1))
    return scenes.to_bytes(img).astype(F) / 255


def without(scene, height):
    """The true picture without its disc: a speck in the glow (a fault)."""
    return pictures.draw(dict(scene, radius=0.002), height)


def check(count=200, height=256, seed=90001):
    """Shares of right counts: true, two discs, none; and the largest 98 % of errors of the place."""
    rng = np.random.default_rng(seed)
    right = {"true": [], "two": [], "none": []}
    far, wrong = [], []
    for n in range(count):
        s = scenes.sample_scene(rng)
        for kind, img, want in (("true", pictures.draw(s, height), 1), ("two", with_second(s, rng, height), 2), ("none", without(s, height), 0)):
            if img is None:
                continue
            got = find(img)
            right[kind].append(len(got) == want)
            if len(got) != want:
                wrong.append((n, kind, len(got), s["time"], s["clouds"], s["snow"], s["ground"]))
            if kind == "true" and got:
                far.append(np.hypot(got[0][0] - s["sun"][0], got[0][1] - s["sun"][1]))
    return {k: (float(np.mean(v)), len(v)) for k, v in right.items()}, float(np.quantile(far, 0.98)), wrong


def spoil(img, rng):
    """Blurred, stretched, shifted in brightness: as a model may draw it.  Returns the picture and the stretch of x."""
    h, w = img.shape[:2]
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    img = pictures.resize(img, h, int(w * stretch))
    if rng.random() < 0.6:
        small = pictures.resize(img, int(h / rng.uniform(1.2, 2.2)), int(w * stretch / 1.6))
        img = np.stack([np.asarray(pictures.Image.fromarray(np.ascontiguousarray(small[..., c]), "F").resize(
            (int(w * stretch), h), pictures.Image.BILINEAR), F) for c in range(3)], -1)
    return np.clip(img * F(rng.uniform(0.9, 1.05)) + rng.standard_normal(img.shape).astype(F) * F(0.008), 0, 1), stretch


def train(count=700):
    rng = np.random.default_rng(7001)
    seen, label = [], []
    for n in range(count):
        s = scenes.sample_scene(rng, float(rng.choice([1.0, 1.0, 1.5])))
        img, stretch = pictures.draw(s, int(rng.choice([256, 256, 384]))), 1.0
        if n % 2:
            img, stretch = spoil(img, rng)
        places, what = candidates(img)
        if not places:
            continue
        seen.append(what)
        label += [int(np.hypot(x - s["sun"][0] * stretch, y - s["sun"][1]) < 0.5 * s["radius"]) for x, y, _ in places]
        if n % 100 == 99:
            print(n + 1, "scenes", len(label), "candidates", sum(label), "discs", flush=True)
    net = small_net.train(np.concatenate(seen), np.array(label), 2, hidden=32, epochs=60, decay=3e-4)
    np.savez_compressed(WEIGHTS, **small_net.pack({"disc": net}))


if __name__ == "__main__":
    import sys
    small_net.counter_main(sys.argv[1:], train, check, lambda far: f"place: 98 % within {far:.4f} of the height")
