"""Procedural mountain landscapes with captions (numpy only).

A scene is a dict of plain numbers in units where the picture is 1 high and `aspect` wide; `render(scene, height)`
draws it at any size.  Two rules make larger pictures worth having:

* what composes the picture (horizon, peaks, clouds, the disc) is given in picture units and fractal: a picture of twice the
  size shows the same scene with more octaves of detail;
* what is small (pines, stars, flowers, ripples, grass) is given in pixels: a picture of twice the size shows more of
  them, not larger ones.

Noise lattices are hashed from (seed, cell), so nothing depends on the size or aspect that is drawn.
Every scene has exactly one sun or moon, whole and above the skyline.
"""
import numpy as np

F = np.float32


# ---------------------------------------------------------------------------------------------- noise

def hash01(ix, iy, seed):
    """Uniform numbers in [0, 1) for integer lattice points."""
    with np.errstate(over="ignore"):
        h = np.asarray(ix).astype(np.uint32) * np.uint32(0x9E3779B1)
        h = h ^ (np.asarray(iy).astype(np.uint32) * np.uint32(0x85EBCA77)) ^ np.uint32((seed * 0xC2B2AE3D) & 0xFFFFFFFF)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(12)
        h *= np.uint32(0x297A2D39)
        h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(F) * F(2.0 ** -24)


def line_noise(x, freq, freq_max, seed, gain=0.6):
    """Fractal polyline around 0 (about +-0.5), octaves from freq to freq_max cells per unit."""
    out, amp, total, k = np.zeros(x.shape, F), 1.0, 0.0, 0
    while freq < freq_max:
        u = x * F(freq) + F(11.3 * k)
        i = np.floor(u).astype(np.int64)
        f = (u - i).astype(F)
        a, b = hash01(i, k, seed), hash01(i + 1, k, seed)
        fade = min(1.0, freq_max / freq - 1.0)
        out += F(amp * fade) * (a + (b - a) * f - F(0.5))
        total += amp
        amp *= gain
        freq *= 2.0
        k += 1
    return out * F(1 - gain) * F(1.6)


def spline_rows(u):
    """Cubic B-spline weights of the coordinates u (in cells): matrix [len(u), cells], first cell."""
    i = np.floor(u).astype(np.int64)
    f = (u - i).astype(F)
    w = np.stack([(1 - f) ** 3, 3 * f ** 3 - 6 * f ** 2 + 4, -3 * f ** 3 + 3 * f ** 2 + 3 * f + 1, f ** 3], -1) / F(6)
    first = int(i.min()) - 1
    m = np.zeros((u.size, int(i.max()) + 3 - first), F)
    rows = np.arange(u.size)
    for k in range(4):
        m[rows, i - first + k - 1] = w[:, k]
    return m, first


def field_noise(x, y, fx, fy, freq_max, seed, gain=0.6):
    """Fractal field [len(y), len(x)] around 0 (about +-0.5); x and y are 1-D."""
    out, amp, k = np.zeros((y.size, x.size), F), 1.0, 0
    while max(fx, fy) < freq_max:
        fade = min(1.0, freq_max / max(fx, fy) - 1.0)
        mx, x0 = spline_rows(x * F(fx) + F(7.3 * k))
        my, y0 = spline_rows(y * F(fy) + F(3.1 * k))
        g = hash01(np.arange(x0, x0 + mx.shape[1])[None, :], np.arange(y0, y0 + my.shape[1])[:, None], seed + 77 * k) - F(0.5)
        out += F(amp * fade) * ((my @ g) @ mx.T)
        amp *= gain
        fx *= 2.0
        fy *= 2.0
        k += 1
    return out * F((1 - gain) * 3.0)


def smooth(a, b, x):
    t = np.clip((x - F(a)) / F(b - a), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, k):
    """a towards b by k; k lacks the colour axis."""
    return a + (b - a) * k[..., None]


def colour(text):
    return np.array([int(text[i:i + 2], 16) for i in (1, 3, 5)], F) / 255


# ---------------------------------------------------------------------------------------------- what a scene is

#        zenith    middle    horizon   glow      disc      haze      rock lit  rock dark pines     water     grass     lit grass
PALETTES = {
    "dawn":   "#46569a #b993bd #fbd3b4 #ffcfa4 #fff3de #dcb6ba #b3949a #5a4d78 #2a3552 #66719c #6f7550 #d3bd84",
    "noon":   "#2a6fc2 #6fb0e6 #d9eef9 #ffffff #fffde9 #b7d4ea #a3a4a6 #52607a #1d4a3a #2c7ca6 #4f8f3a #a9d062",
    "sunset": "#3b2c70 #c6506a #ffae5a #ff9c48 #fff3c6 #e58a62 #b8664f #472a58 #281c3c #7b4066 #6c4432 #eea352",
    "dusk":   "#171f4c #4d4d92 #d38da2 #dc8eaa #ffe7d6 #7d71aa #6c65a0 #2c2e62 #141a3c #3d4383 #343b64 #8478a6",
    "night":  "#060b22 #10204a #2d4b7c #86a8e0 #f3f6ff #2d4676 #4a6592 #172446 #081022 #18305c #12263f #35568a",
}
TIMES = list(PALETTES)
MOODS = ["serene", "dramatic", "misty"]
GROUNDS = ["lake", "meadow", "forest"]
GLOW = {"dawn": 0.9, "noon": 0.5, "sunset": 1.0, "dusk": 0.8, "night": 0.55}
MIST = {"serene": 0.40, "dramatic": 0.05, "misty": 1.25}


def sample_scene(rng, aspect=1.0):
    """A random scene; the generator is a numpy Generator."""
    s = dict(seed=int(rng.integers(1, 1 << 30)), aspect=float(aspect))
    s["time"] = TIMES[rng.integers(5)]
    s["mood"] = MOODS[rng.integers(3)]
    s["ground"] = GROUNDS[rng.choice(3, p=[0.45, 0.2, 0.35])]
    s["snow"] = bool(rng.random() < 0.5)
    s["clouds"] = bool(rng.random() < 0.55)
    s["horizon"] = float(rng.uniform(0.45, 0.85))
    s["zoom"] = float(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
    s["relief"] = float(min(rng.uniform(0.26, 0.40) * s["zoom"] ** 0.5, s["horizon"] - 0.20))
    s["layers"] = int(rng.integers(2, 5))
    s["radius"] = float(np.clip(0.040 * s["zoom"] ** 0.5 * rng.uniform(0.85, 1.15), 0.032, 0.056))
    s["hue"] = [float(v) for v in rng.uniform(-0.035, 0.035, 3)]
    x = np.linspace(0, aspect, int(256 * aspect), dtype=F)
    r, tries, free = s["radius"], 0, False
    while not free:                                             # the disc, whole and clear of the skyline
        if tries % 200 == 0:                                    # it has no room, it seems: lower mountains
            s["relief"] *= 1.0 if tries == 0 else 0.85
            line = np.min([ridge(s, l, x, 128.0)[0] for l in range(s["layers"])], 0)
        tries += 1
        side, height = SIDES[rng.integers(3)], HEIGHTS[rng.choice(3, p=[0.2, 0.3, 0.5])]     # low ones often have no room
        sx = aspect * side[3] + float(rng.uniform(-SPREAD, SPREAD))
        sy = height[3] + float(rng.uniform(-SPREAD, SPREAD)) * 0.5
        free = 1.3 * r < sy < float(line[np.abs(x - sx) < 1.5 * r].min()) - 1.4 * r
    s["sun"] = [sx, sy]
    s["clouds"] = s["clouds"] and clouds_show(s)
    return s


def mirror(s):
    """The attributes of the mirrored picture (for captions)."""
    return dict(s, sun=[s["aspect"] - s["sun"][0], s["sun"][1]])


WORDS = {
    "dawn": ["at dawn", "at sunrise"], "noon": ["at noon", "in daylight"], "sunset": ["at sunset"],
    "dusk": ["at dusk", "at twilight"], "night": ["at night"],
    "lake": ["a lake"], "meadow": ["a meadow"], "forest": ["a pine forest", "a forest"],
}


def caption(s, rng):
    """A sentence about what is in the picture.  Now and then a part is left out, so that short prompts work too."""
    def pick(name):
        return WORDS[name][0] if rng.random() < 0.7 else WORDS[name][rng.integers(len(WORDS[name]))]

    keep = rng.random(6) > (0.06 if rng.random() < 0.9 else 0.5)
    disc = "moon" if s["time"] == "night" else "sun"
    side, height = place(s["sun"][0] / s["aspect"], s["sun"][1])
    peaks = "snowy peaks" if s["snow"] else "rocky peaks"
    sky = "a cloudy sky" if s["clouds"] else "a clear sky"
    what = "mountain landscape" if rng.random() < 0.8 else "mountains"
    text = f"{s['mood']} {what}" if keep[0] else what
    if what == "mountain landscape":
        text = "a " + text
    if keep[1]:
        text += " " + pick(s["time"])
    parts = [p for p, k in ((pick(s["ground"]), keep[2]), (peaks, keep[3]), (sky, keep[4])) if k]
    if parts:
        text += " with " + (", ".join(parts[:-1]) + " and " if len(parts) > 1 else "") + parts[-1]
    if keep[5]:
        text += f", the {disc} {HEIGHTS[height][2]}{SIDES[side][2]}"
    return text


# Parts of the width and of the height, how a caption calls them, and where in them a disc stands.
SIDES = [(0.0, 0.36, "on the left", 0.18), (0.36, 0.64, "in the center", 0.5), (0.64, 1.0, "on the right", 0.82)]
HEIGHTS = [(0.0, 0.18, "high ", 0.11), (0.18, 0.30, "", 0.24), (0.30, 0.55, "low ", 0.37)]
# A disc stands in the middle of such a part (the last number), give or take this much of the picture's height, half of it up and down: about
# its radius. Had it the whole part, there would be a dozen places for it, and a small model that is in doubt draws something of two of them.
SPREAD = 0.04


def place(x, y):
    """Which of SIDES and of HEIGHTS a disc at x, y (parts of the picture) is in."""
    return 0 if x < SIDES[0][1] else 2 if x > SIDES[2][0] else 1, 0 if y < HEIGHTS[0][1] else 2 if y > HEIGHTS[2][0] else 1


def place_told(text, s):
    """Where a disc may be for who has read this caption of s alone: center and half sides, as parts of the picture; None where it does not tell."""
    if ", the sun " not in text and ", the moon " not in text:
        return None
    side, height = place(s["sun"][0] / s["aspect"], s["sun"][1])
    return SIDES[side][3], (SPREAD + s["radius"]) / s["aspect"], HEIGHTS[height][3], SPREAD * 0.5 + s["radius"]


# ---------------------------------------------------------------------------------------------- mountains

def ridge(s, layer, x, freq_max):
    """Skyline of one range (0 = farthest) at the columns x.

    Returns y of the skyline, x of the summit each column belongs to, and y of that summit.
    A summit is a tent with its own two slopes; the skyline is the upper hull of the tents, roughened."""
    depth = layer / max(s["layers"] - 1, 1) if s["layers"] > 1 else 0.0
    hz, relief, zoom = s["horizon"], s["relief"], s["zoom"]
    seed = s["seed"] + 31 * (layer + 1)
    foot = hz - relief * 0.28 * (1 - depth)                     # farther ranges stand higher in the picture
    tall = relief * (0.72 - 0.34 * depth)
    pitch = zoom * (0.30 + 0.05 * layer)                        # mean distance of summits
    i0, i1 = int(np.floor(x.min() / pitch)) - 3, int(np.ceil(x.max() / pitch)) + 3
    best = np.full(x.shape, -1.0, F)
    own_x, own_h = np.zeros(x.shape, F), np.zeros(x.shape, F)
    for i in range(i0, i1 + 1):
        r = [float(hash01(i, k, seed)) for k in range(5)]
        cx, h = (i + 0.15 + 0.7 * r[0]) * pitch, tall * (0.45 + 0.55 * r[1])
        d = x - F(cx)
        tent = F(h) - np.abs(d) * np.where(d < 0, F(0.55 + 0.5 * r[2]), F(0.55 + 0.5 * r[3])) * (1 + F(0.25 / zoom) * np.abs(d))
        won = tent > best
        best = np.where(won, tent, best)
        own_x, own_h = np.where(won, F(cx), own_x), np.where(won, F(h), own_h)
    rough = line_noise(x, 7.0 / zoom, freq_max, seed + 7, 0.58) * F(tall * 0.30)
    hills = F(tall * 0.22) + line_noise(x, 2.3 / zoom, freq_max, seed + 8, 0.5) * F(tall * 0.55)    # between the summits
    y = F(foot) - np.maximum(best + rough, hills)
    return np.minimum(y, F(hz)), own_x, F(foot) - own_h


def paint_range(img, s, layer, x, y, px, pal, side):
    depth = layer / max(s["layers"] - 1, 1) if s["layers"] > 1 else 0.5
    mist, zoom, seed = MIST[s["mood"]], s["zoom"], s["seed"] + 57 * (layer + 1)
    height = img.shape[0]
    fmax = 0.5 / px
    line, own_x, own_y = ridge(s, layer, x, fmax)
    r0 = max(0, int(line.min() / px) - 1)
    r1 = min(height, int(np.ceil((s["horizon"] + 0.02) / px)) + 1)
    if r1 <= r0:
        return line
    ys = y[r0:r1]
    below = np.maximum(ys[:, None] - line[None, :], 0)
    rock = field_noise(x, ys, 6.0 / zoom, 4.0 / zoom, fmax, seed, 0.62)
    # The crest that runs down from a summit parts a lit flank from a dark one; it wanders as it descends.
    lean = F(0.5 * (float(hash01(layer, 3, s["seed"])) - 0.5))
    xw = x[None, :] + rock * (F(0.03) + F(0.55) * below) + lean * below
    col = np.clip((xw - x[0]) / (x[1] - x[0]), 0, x.size - 1).astype(np.int64)
    off = (xw - own_x[col]) * side
    lit = smooth(-0.012, 0.012, off) * F(0.8) + F(0.1)
    lit = np.clip(lit + rock * F({"serene": 0.5, "dramatic": 0.85, "misty": 0.4}[s["mood"]]), 0, 1)
    col3 = mix(pal["rock_dark"], pal["rock_lit"], lit)
    if s["snow"]:
        line_y = own_y[col] + F(s["relief"] * (0.26 + 0.10 * (1 - depth)))
        snow = smooth(-0.010, 0.010, line_y - ys[:, None] + rock * F(0.20 * zoom ** 0.5) - F(0.06) * (1 - lit))
        white = (F(0.55) + F(0.45) * pal["horizon"] + pal["snow_lift"]) * (F(0.55) + F(0.45) * lit)[..., None]
        col3 = mix(col3, np.clip(white, 0, 1), snow)
    if depth > 0.6 and s["ground"] != "lake":
        wooded = smooth(0.25, 0.75, (ys[:, None] - own_y[col]) / F(s["relief"] * 0.55) + rock * F(0.8))
        col3 = mix(col3, pal["pines"] * F(1.1), wooded * F(0.7))
    foot = smooth(0.0, 1.0, (ys - F(s["horizon"] - 0.8 * s["relief"])) / F(0.8 * s["relief"]))[:, None]
    wisp = field_noise(x, ys, 1.5 / zoom, 7.0 / zoom, 30.0, seed + 9, 0.5)
    haze = (1 - depth) * (0.34 + 0.22 * mist) + foot * (0.18 + 0.55 * mist) * (1 - 0.55 * depth) * (1 + 0.7 * wisp)
    haze = np.clip(haze, 0, 0.9).astype(F)
    near = np.exp(-np.abs(x - F(s["sun"][0])) * 3.5) * F(0.4 * GLOW[s["time"]])
    col3 = mix(col3, mix(np.broadcast_to(pal["haze"], (x.size, 3)), pal["glow"], near)[None], haze)
    cover = np.clip((ys[:, None] - line[None, :]) / F(px) + F(0.5), 0, 1)
    img[r0:r1] = mix(img[r0:r1], col3, cover)
    return line


# ---------------------------------------------------------------------------------------------- things sized in pixels

def paint_pines(img, x, y, px, base, tall, seed, col, fog, pal, end):
    """One row of pines `tall` pixels high standing on the line base(x); filled down to y = end."""
    w = F(tall * 0.36 * px)
    u = x / w
    best = np.full(x.shape, -1.0, F)
    for o in (0, 1):
        i0 = np.floor(u + F(0.5 * o)).astype(np.int64)
        for k in (-1, 0, 1):
            i = i0 + k
            h = F(tall * px) * (F(0.45) + F(0.55) * hash01(i, o, seed)) * (hash01(i, o + 2, seed) > 0.12)
            d = np.abs(u + F(0.5 * o) - i - F(0.2) - F(0.6) * hash01(i, o + 4, seed)) * w
            v = d / np.maximum(h * F(0.25), F(1e-6))                         # 0 at the trunk, 1 at the skirt
            best = np.maximum(best, h * np.clip(1 - v + F(0.20) * ((v * 3.0) % 1.0) * (v > 0.1), -1, 1))
    top = base - np.maximum(best, 0)
    r0, r1 = max(0, int(top.min() / px) - 1), min(img.shape[0], int(np.ceil(end / px)))
    if r1 <= r0:
        return
    ys = y[r0:r1, None]
    cover = np.clip((ys - top[None, :]) / F(px) + F(0.5), 0, 1)
    k = np.clip(F(fog) * (F(0.55) + F(0.9) * smooth(0, tall * px, ys - (base[None, :] - F(tall * px)))), 0, 0.85)
    img[r0:r1] = mix(img[r0:r1], mix(np.broadcast_to(col, k.shape + (3,)), pal["haze"], k), cover)


def paint_stars(img, s, x, y, px, dist):
    """Stars about one pixel wide, about one per 400 pixels."""
    amount = {"night": 1.0, "dusk": 0.35}.get(s["time"], 0.0)
    if amount == 0.0:
        return
    cell = 20.0 * px
    ix, iy = np.floor(x / cell).astype(np.int64)[None, :], np.floor(y / cell).astype(np.int64)[:, None]
    cx, cy = (ix + F(0.15) + F(0.7) * hash01(ix, iy, s["seed"] + 900)) * cell, (iy + F(0.15) + F(0.7) * hash01(ix, iy, s["seed"] + 901)) * cell
    bright = hash01(ix, iy, s["seed"] + 902)
    bright = bright * (bright > 1 - 0.75 * amount)
    r2 = ((x[None, :] - cx) ** 2 + (y[:, None] - cy) ** 2) / F((0.8 * px) ** 2)
    k = np.exp(-r2) * bright * smooth(0.95, 0.35, y / F(s["horizon"]))[:, None] * smooth(0.10, 0.20, dist)
    img[:] = mix(img, np.ones(3, F), np.clip(k, 0, 1))


def cloud_cover(s, x, y):
    """How much of the sky the clouds hide at each pixel [len(y), len(x)], and their density (what lights them); thin around the disc."""
    zoom, (sx, sy) = s["zoom"], s["sun"]
    t = np.clip(y / F(s["horizon"]), 0, 1)[:, None]
    dist = np.hypot(x[None, :] - F(sx), y[:, None] - F(sy))
    n = field_noise(x, y, 1.7 / zoom, 5.0 / zoom, 0.5 / (y[1] - y[0]), s["seed"] + 11, 0.55)
    cover = smooth(0.00, 0.20, n + F(0.08) - F(0.10) * t) * smooth(0.98, 0.6, t)
    return cover * (F(0.95) - F(0.65) * np.exp(-(dist / F(2.6 * s["radius"])) ** 2)), n


def clouds_show(s):
    """Whether clouds hide at least a tenth of the sky that the mountains leave: a scene is called cloudy only then."""
    px = 1 / 96
    x, y = ((np.arange(round(s["aspect"] / px)) + 0.5) * px).astype(F), ((np.arange(96) + 0.5) * px).astype(F)
    line = np.min([ridge(s, l, x, 48.0)[0] for l in range(s["layers"])], 0)
    return bool(cloud_cover(s, x, y)[0][y[:, None] < line[None]].mean() > 0.10)


# ---------------------------------------------------------------------------------------------- the picture

def render(s, height, width=None):
    """Picture [height, width, 3], float32 in [0, 1]."""
    width = width or int(round(height * s["aspect"]))
    px = 1.0 / height
    x, y = ((np.arange(width) + 0.5) * px).astype(F), ((np.arange(height) + 0.5) * px).astype(F)
    names = "zenith middle horizon glow disc haze rock_lit rock_dark pines water grass grass_lit".split()
    pal = {n: colour(c) for n, c in zip(names, PALETTES[s["time"]].split())}
    for n in ("zenith", "middle", "horizon", "haze"):
        pal[n] = np.clip(pal[n] + np.array(s["hue"], F), 0, 1)
    pal["snow_lift"] = F(0.10 if s["time"] == "night" else 0.0)
    hz, (sx, sy), r, seed = s["horizon"], s["sun"], s["radius"], s["seed"]
    glow, mist = GLOW[s["time"]], MIST[s["mood"]]
    dist = np.sqrt((x[None, :] - F(sx)) ** 2 + (y[:, None] - F(sy)) ** 2)

    # sky, glow, stars
    t = np.clip(y / F(hz), 0, 1)
    sky = mix(mix(np.broadcast_to(pal["zenith"], (height, 3)), pal["middle"], smooth(0.0, 0.55, t)), pal["horizon"], smooth(0.4, 1.0, t))
    img = np.repeat(sky[:, None], width, 1)
    img = mix(img, pal["glow"], np.clip(np.exp(-dist * F(5.5)) * F(0.7 * glow) + np.exp(-dist * F(16)) * F(0.3 * glow), 0, 1))
    paint_stars(img, s, x, y, px, dist)

    # clouds never cover the disc
    if s["clouds"]:
        cover, n = cloud_cover(s, x, y)
        shift = max(1, int(round(0.018 * s["zoom"] * height)))
        lit = smooth(-0.05, 0.16, n - np.concatenate([n[shift:], np.repeat(n[-1:], shift, 0)])[:height])
        dark, bright = pal["horizon"] * F(0.5) + pal["middle"] * F(0.45), np.clip(pal["horizon"] * F(0.45) + pal["glow"] * F(0.6), 0, 1)
        if s["time"] == "night":
            dark, bright = pal["middle"] * F(0.9), pal["horizon"] * F(1.05)
        img = mix(img, mix(np.broadcast_to(dark, img.shape), bright, lit), cover)

    side = F(1.0 if sx > 0.5 * s["aspect"] else -1.0)
    for layer in range(s["layers"]):
        paint_range(img, s, layer, x, y, px, pal, side)
    {"lake": paint_lake, "meadow": paint_meadow, "forest": paint_forest}[s["ground"]](img, s, x, y, px, pal, mist)
    img = grade(img, s, x, y, pal)

    # the one disc, last: it stands clear of the skyline, and the lake must not show a second one
    disc = np.broadcast_to(pal["disc"], img.shape)
    if s["time"] == "night":
        spots = smooth(-0.02, 0.10, field_noise(x - F(sx), y - F(sy), 0.7 / r, 0.7 / r, 4.0 / r, 5, 0.5))
        disc = disc * (F(0.86) + F(0.14) * spots)[..., None]
    img = mix(img, disc, np.clip((F(r) - dist) / F(px) + F(0.5), 0, 1))
    return np.clip(img, 0, 1)


def upper_corners(u, y):
    """From 0 to 1 towards the upper corners; u: from the middle, in widths of the picture; y: from the top, in heights."""
    return smooth(0.10, 0.75, np.hypot(u, 0.62 - y))


def grade(img, s, x, y, pal):
    """What a mood does to all colours: dramatic ones are deep, darker towards the upper corners; serene ones are soft and light; a mist
    lies over the lower half."""
    hz = F(s["horizon"])
    if s["mood"] == "dramatic":
        img = mix(img, img * img * (3 - 2 * img), np.full(img.shape[:2], 0.75, F))
        return img * (1 - F(0.42) * upper_corners((x / F(s["aspect"]) - F(0.5))[None], y[:, None]))[..., None]
    if s["mood"] == "serene":
        return F(0.10) + F(0.04) * pal["horizon"] + F(0.86) * img
    bank = F(0.5) * np.exp(-((y - hz) / F(0.10)) ** 2) + F(0.22) * smooth(0.0, 0.12, y - hz)
    wisp = field_noise(x, y, 1.2 / s["zoom"], 6.0 / s["zoom"], 24.0, s["seed"] + 13, 0.5)
    return mix(img, pal["haze"], np.clip(bank[:, None] * (1 + F(0.9) * wisp), 0, 0.8))


def paint_lake(img, s, x, y, px, pal, mist):
    hz, seed, (sx, _) = s["horizon"], s["seed"], s["sun"]
    shore = F(hz) + line_noise(x, 2.0, 20.0, seed + 5) * F(0.006)
    paint_pines(img, x, y, px, shore, 13.0, seed + 201, pal["pines"], 0.25 * mist, pal, hz + 2 * px)
    top = min(img.shape[0] - 1, int(round(hz / px)) + 1)
    ys = y[top:]
    deep = ((ys - y[top]) / F(max(1 - hz, 0.15)))[:, None]
    # wave crests lie 2.5 pixels apart at the far shore and drift apart towards the viewer
    down = (ys - y[top]) / F(px)
    rows = F(22.0) * np.log1p(down / F(55.0))
    wave = field_noise(x / F(px) / F(26.0), rows, 1.0, 1.0, 3.9, seed + 71, 0.5)
    src = (2 * y[top] - ys)[:, None] / F(px) - wave * (F(2.0) + F(8.0) * np.minimum(deep, 1)) - 1
    src = np.clip(src, 0, top - 1)
    i = src.astype(np.int64)
    f = (src - i)[..., None]
    dry = img[:top].copy()
    cols = np.arange(x.size)[None, :]
    water = dry[i, cols] * (1 - f) + dry[np.minimum(i + 1, top - 1), cols] * f
    water = mix(water * F(0.9), pal["water"], np.broadcast_to(F(0.10) + F(0.22) * np.minimum(deep, 1), wave.shape))
    path = np.exp(-((x[None, :] - F(sx)) / (F(0.03) + F(0.10) * deep)) ** 2) * smooth(0.02, 0.14, wave) * F(0.55 * max(GLOW[s["time"]], 0.5))
    water = mix(water, pal["disc"], np.clip(path, 0, 0.75))
    img[top:] = mix(water, pal["haze"], np.broadcast_to(np.exp(-deep / F(0.05)) * F(0.2 + 0.4 * mist), wave.shape))


def paint_meadow(img, s, x, y, px, pal, mist):
    hz, seed = s["horizon"], s["seed"]
    paint_pines(img, x, y, px, F(hz) + line_noise(x, 2.0, 20.0, seed + 5) * F(0.01), 16.0, seed + 301, pal["pines"], 0.3 * mist, pal, hz + 0.03)
    edge = F(hz + 0.012) + line_noise(x, 1.1 / s["zoom"], 8.0, seed + 61, 0.4) * F(0.03)
    r0 = max(0, int(edge.min() / px) - 1)
    ys = y[r0:]
    if ys.size == 0:
        return
    deep = np.clip((ys[:, None] - edge[None, :]) / F(1 - hz), 0, 1)
    rows = np.sqrt(np.maximum(ys - F(hz), 0) / F(px) + 4.0).astype(F)
    bands = field_noise(x * F(1.5 / s["zoom"]), rows * F(0.30), 1.0, 1.0, 12.0, seed + 64, 0.55)
    grass = field_noise(x / F(px) / F(7.0), rows * F(1.5), 1.0, 1.0, 3.9, seed + 63, 0.6)
    k = smooth(-0.20, 0.28, bands * F(0.9) + grass * F(0.45) - F(0.15) * deep)
    col = mix(np.broadcast_to(pal["grass"], k.shape + (3,)) * (1 - F(0.35) * deep)[..., None], pal["grass_lit"], k * F(0.9))
    # flowers: about two pixels wide, in drifts
    cell = 9.0 * px
    ix, iy = np.floor(x / cell).astype(np.int64)[None, :], np.floor(ys / cell).astype(np.int64)[:, None]
    cx, cy = (ix + F(0.2) + F(0.6) * hash01(ix, iy, seed + 81)) * cell, (iy + F(0.2) + F(0.6) * hash01(ix, iy, seed + 82)) * cell
    spot = np.exp(-((x[None, :] - cx) ** 2 + (ys[:, None] - cy) ** 2) / F((1.1 * px) ** 2)) * (hash01(ix, iy, seed + 83) > 0.45) * smooth(0.0, 0.12, bands) * smooth(0.08, 0.3, deep)
    col = mix(col, np.clip(pal["disc"] * F(0.75) + pal["glow"] * F(0.25), 0, 1), np.clip(spot * F(0.85), 0, 1))
    col = mix(col, pal["haze"], np.exp(-deep / F(0.12)) * F(0.15 + 0.45 * mist))
    img[r0:] = mix(img[r0:], col, np.clip((ys[:, None] - edge[None, :]) / F(px) + F(0.5), 0, 1))


def paint_forest(img, s, x, y, px, pal, mist):
    hz, seed = s["horizon"], s["seed"]
    rows = int((1 - hz) / px)                            # pixels of ground
    at, row, tall = 0.0, 0, 13.0
    while at < rows + tall:
        near = min(1.0, at / 110.0)                      # trees stop growing 110 pixels below the horizon
        tall = 13.0 + 25.0 * near
        base = F(hz + (at + 5.0) * px) + line_noise(x / F(px), 1 / 150.0, 1 / 12.0, seed + 91 + row, 0.5) * F(px * (6.0 + 10.0 * near))
        fog = (1 - near) ** 1.5 * (0.25 + 0.45 * mist) + 0.05 * mist
        col = pal["pines"] * F(1.25 - 0.55 * near) * F(0.92 + 0.16 * float(hash01(row, 7, seed)))
        paint_pines(img, x, y, px, base, tall, seed + 401 + 17 * row, col, fog, pal, 1.0)
        at += 6.0 + 13.0 * near
        row += 1


def to_bytes(img):
    return (img * 255 + F(0.5)).astype(np.uint8)


if __name__ == "__main__":
    import sys
    import tiles
    count, height, seed, aspect, out = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
    rng = np.random.default_rng(seed)
    pictures = []
    for n in range(count):
        scene = sample_scene(rng, aspect)
        pictures.append(to_bytes(render(scene, height)))
        print(n, caption(scene, rng))
    tiles.save(out, pictures, max(1, min(count, 1536 // pictures[0].shape[1])))
