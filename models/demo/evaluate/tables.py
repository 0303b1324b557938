"""docs/evidence.md and its drawings from the CSV alone.

    tables.py CSV DOC.md

Intervals are 95 % of 1000 bootstrap resamples of the prompts; differences between methods resample the same prompts for both.
What the document says about orderings is decided here from those intervals, not written by hand.
"""
import csv
import os
import sys
from collections import defaultdict

import numpy as np

METHODS = ["base", "pi", "ntk", "yarn", "time-aware", "dy-pi", "dy-ntk", "dy-yarn"]
NAMES = {"base": "base", "pi": "PI", "ntk": "NTK", "yarn": "YaRN", "time-aware": "time-aware", "dy-pi": "Dy-PI", "dy-ntk": "Dy-NTK", "dy-yarn": "Dy-YaRN"}
COLOURS = {"base": "#444444", "pi": "#1b6ca8", "ntk": "#3b8e4d", "yarn": "#c8553d", "time-aware": "#8a5aa8", "dy-pi": "#5fb0e5", "dy-ntk": "#8fce6a",
           "dy-yarn": "#f0a04b"}
PAIRS = [("pi", "dy-pi"), ("ntk", "dy-ntk"), ("yarn", "dy-yarn"), ("base", "yarn"), ("base", "dy-yarn"), ("time-aware", "dy-yarn")]
SIZES = ["2x", "3x", "4x", "panorama"]
FEWEST = 6                       # prompts for a verdict: resamples of fewer say little
RESAMPLES, MODES = 1000, 4       # of the 8 modes in the CSV


def read(path):
    """{(kind, size, method): {item: {measure: value}}}, items in order of the file."""
    out = defaultdict(lambda: defaultdict(dict))
    with open(path) as f:
        for r in csv.DictReader(f):
            try:
                v = float(r["value"])
            except ValueError:
                v = r["value"]
            out[r["kind"], r["size"], r["method"]][r["item"]][r["measure"]] = v
    return out


def matrix(items, measures):
    return np.array([[m[name] for name in measures] for m in items.values()], float)


def draws(n, seed=1):
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def interval(values):
    return np.quantile(values, 0.025), np.quantile(values, 0.975)


def frechet(x, mean, cov):
    """Between Gaussians: of the rows of x, and the truth's."""
    d = x.mean(0) - mean
    c = np.cov(x.T)
    w, u = np.linalg.eigh(cov)
    root = (u * np.sqrt(np.maximum(w, 0))) @ u.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c @ root), 0)).sum()
    return float(d @ d + np.trace(c) + np.trace(cov) - 2 * cross)


class Size:
    """The figures of every method at one size, with their resamples."""

    def __init__(self, data, size):
        self.size = size
        self.truth = data["picture", size, "truth"]
        self.layouts = matrix(data["layout", size, "truth"], [f"layout_{i}" for i in range(MODES)])
        self.mean, self.cov = self.layouts.mean(0), np.cov(self.layouts.T)
        self.bands = [m for m in next(iter(self.truth.values())) if m.startswith("band_")]
        self.true_bands = matrix(self.truth, self.bands).mean(0)
        self.methods = {m: data["picture", size, m] for m in METHODS if data["picture", size, m]}
        self.figures = {m: self.of(items) for m, items in self.methods.items()}
        n = len(next(iter(self.methods.values())))
        self.n = n
        # what a perfect model would get with so few pictures: the truth against itself
        rng = np.random.default_rng(2)
        self.floor_layout = float(np.mean([frechet(self.layouts[rng.permutation(len(self.layouts))[:n]], self.mean, self.cov) for _ in range(200)]))
        true = matrix(self.truth, self.bands)
        half = [rng.permutation(len(true)) for _ in range(200)]
        k = max(1, len(true) // 2)
        self.floor_bands = float(np.mean([np.sqrt(np.mean((true[h[:k]].mean(0) - true[h[k:]].mean(0)) ** 2)) for h in half]))

    def of(self, items):
        x = matrix(items, ["discs", "horizons"])
        layout = matrix(items, [f"layout_{i}" for i in range(MODES)])
        band = matrix(items, self.bands)
        pick = draws(len(x))
        one = lambda c, rows: float((x[rows, c] == 1).mean())
        spectrum = lambda rows: float(np.sqrt(np.mean((band[rows].mean(0) - self.true_bands) ** 2)))
        fine = lambda rows: float(band[rows, -1].mean() - self.true_bands[-1])
        f = {"disc": lambda rows: one(0, rows), "horizon": lambda rows: one(1, rows), "spectrum": spectrum, "fine": fine,
             "layout": lambda rows: frechet(layout[rows], self.mean, self.cov)}
        every = np.arange(len(x))
        out = {}
        for name, g in f.items():
            value, boot = g(every), np.array([g(p) for p in pick])
            if name in ("spectrum", "layout"):                 # distances of resamples are larger by their repeats: moved back
                boot += value - boot.mean()
            out[name] = (value, boot)
        return out


# ---------------------------------------------------------------------------------------------- text

def share(v):
    lo, hi = interval(v[1])
    return f"{100 * v[0]:.0f} ({100 * lo:.0f} to {100 * hi:.0f})"


def number(v, digits):
    lo, hi = interval(v[1])
    return f"{v[0]:.{digits}f} ({lo:.{digits}f} to {hi:.{digits}f})"


def size_table(s):
    lines = ["| method | one disc, % | one horizon, % | spectrum, dB | finest octave, dB | layout |", "|---|---|---|---|---|---|"]
    for m, f in s.figures.items():
        lines.append(f"| {NAMES[m]} | {share(f['disc'])} | {share(f['horizon'])} | {number(f['spectrum'], 1)} | {number(f['fine'], 1)} | {number(f['layout'], 2)} |")
    t = s.of(s.truth)
    lines.append(f"| truth | {100 * t['disc'][0]:.0f} | {100 * t['horizon'][0]:.0f} | {s.floor_bands:.1f} | 0 | {s.floor_layout:.2f} |")
    return lines


def levels_of(items):
    return sorted(next(iter(items.values())), key=lambda t: -float(t[2:]))


def loss_of(items, levels):
    """Means by level, their resamples, and both over all levels (last column)."""
    x = matrix(items, levels)
    x = np.concatenate([x, x.mean(1, keepdims=True)], 1)
    return x.mean(0), x[draws(len(x))].mean(1), x


def loss_table(data, size, methods):
    rows = {m: data["loss", size, m] for m in methods if data["loss", size, m]}
    levels = levels_of(next(iter(rows.values())))
    base = {m: loss_of(items, levels) for m, items in rows.items()}
    best = np.min([b[0] for b in base.values()], 0)
    lines = ["| method | " + " | ".join(t[2:] for t in levels) + " | mean |", "|---" * (len(levels) + 2) + "|"]
    for m, (mean, boot, _) in base.items():
        lo, hi = interval(boot[:, -1])
        cells = [f"**{v:.3f}**" if v == b else f"{v:.3f}" for v, b in zip(mean, best)]
        lines.append(f"| {NAMES.get(m, m)} | " + " | ".join(cells) + f" ({lo:.3f} to {hi:.3f}) |")
    return lines, base, levels


def verdict(a, b, less_is_better=True):
    """Of b against a, by the interval of the paired difference."""
    lo, hi = interval(b - a)
    if hi < 0:
        return "better" if less_is_better else "worse"
    if lo > 0:
        return "worse" if less_is_better else "better"
    return "open"


def ordering_table(sizes, losses):
    head = ["loss, mean", "layout", "one disc", "one horizon", "spectrum"]
    lines = ["| second against first | size | " + " | ".join(head) + " |", "|---" * (len(head) + 2) + "|"]
    for a, b in PAIRS:
        for s in sizes:
            fa, fb = s.figures.get(a), s.figures.get(b)
            if fa is None or fb is None:
                continue
            cells = []
            if s.size in losses:
                x, y = losses[s.size][a][2][:, -1], losses[s.size][b][2][:, -1]
                pick = draws(len(x))
                cells.append(verdict(x[pick].mean(1), y[pick].mean(1)) if len(x) >= FEWEST else "few")
            else:
                cells.append("")
            cells += ["few"] * 4 if s.n < FEWEST else [verdict(fa["layout"][1], fb["layout"][1]), verdict(fa["disc"][1], fb["disc"][1], False),
                      verdict(fa["horizon"][1], fb["horizon"][1], False), verdict(fa["spectrum"][1], fb["spectrum"][1])]
            lines.append(f"| {NAMES[a]} → {NAMES[b]} | {s.size} | " + " | ".join(cells) + " |")
    return lines


def count(lines, pair):
    """How often a pair's second was better, worse, open over all cells."""
    cells = [c.strip() for l in lines if l.startswith(f"| {NAMES[pair[0]]} → {NAMES[pair[1]]} ") for c in l.split("|")[3:-1] if c.strip()]
    return {w: cells.count(w) for w in ("better", "worse", "open")}


# ---------------------------------------------------------------------------------------------- drawings

def svg(path, panels, legend):
    """panels: (title, x label, y label, x values, {method: (y, low, high)}, x names or None)"""
    w, h, left, top = 330, 220, 56, 34
    wide = len(panels) * (w + 70) + 20
    out = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{wide}' height='{h + 110}' font-family='sans-serif' font-size='11'>",
           "<rect width='100%' height='100%' fill='white'/>"]
    for i, (title, xl, yl, xs, curves, names) in enumerate(panels):
        x0 = left + i * (w + 70)
        lows, highs = [np.nanmin(c[1]) for c in curves.values()], [np.nanmax(c[2]) for c in curves.values()]
        lo, hi = min(lows), max(highs)
        lo, hi = (lo - 0.05 * (hi - lo), hi + 0.05 * (hi - lo)) if hi > lo else (lo - 1, hi + 1)
        px = lambda v: x0 + 10 + (w - 20) * (v - min(xs)) / (max(xs) - min(xs))
        py = lambda v: top + h * (hi - v) / (hi - lo)
        out.append(f"<text x='{x0}' y='{top - 12}' font-size='13'>{title}</text><rect x='{x0}' y='{top}' width='{w}' height='{h}' fill='none' stroke='#999'/>")
        for k in range(5):
            v = lo + (hi - lo) * k / 4
            out.append(f"<line x1='{x0}' y1='{py(v):.1f}' x2='{x0 + w}' y2='{py(v):.1f}' stroke='#e5e5e5'/><text x='{x0 - 5}' y='{py(v) + 4:.1f}' text-anchor='end'>{v:.3g}</text>")
        for v, name in zip(xs, names or [f"{v:g}" for v in xs]):
            out.append(f"<text x='{px(v):.1f}' y='{top + h + 14}' text-anchor='middle'>{name}</text>")
        out.append(f"<text x='{x0 + w / 2}' y='{top + h + 30}' text-anchor='middle'>{xl}</text>")
        for j, (m, (ys, low, high)) in enumerate(curves.items()):
            shift = (j - len(curves) / 2) * 1.6
            for x, l, u in zip(xs, low, high):
                out.append(f"<line x1='{px(x) + shift:.1f}' y1='{py(l):.1f}' x2='{px(x) + shift:.1f}' y2='{py(u):.1f}' stroke='{COLOURS[m]}' stroke-opacity='0.4'/>")
            dash = " stroke-dasharray='5 3'" if m.startswith("dy-") else ""
            out.append("<polyline fill='none' stroke-width='1.6' stroke='%s'%s points='%s'/>" % (
                COLOURS[m], dash, " ".join(f"{px(x) + shift:.1f},{py(y):.1f}" for x, y in zip(xs, ys))))
    for j, m in enumerate(legend):
        x, y = left + (j % 8) * 100, top + h + 56
        dash = " stroke-dasharray='5 3'" if m.startswith("dy-") else ""
        out.append(f"<line x1='{x}' y1='{y}' x2='{x + 22}' y2='{y}' stroke='{COLOURS[m]}' stroke-width='2'{dash}/><text x='{x + 27}' y='{y + 4}'>{NAMES[m]}</text>")
    out.append("</svg>")
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


def draw_sizes(path, sizes, one):
    """After the paper's figure 5: what becomes of the picture as it grows."""
    squares = [s for s in sizes if s.size != "panorama"]
    panels = []
    for key, title, factor in (("disc", "one disc, %", 100), ("horizon", "one horizon, %", 100), ("layout", "layout distance", 1)):
        curves = {}
        for m in METHODS:
            values = [one.figures["base"][key]] + [s.figures[m][key] for s in squares]
            ci = [interval(v[1]) for v in values]
            curves[m] = ([factor * v[0] for v in values], [factor * c[0] for c in ci], [factor * c[1] for c in ci])
        panels.append((title, "side, in training sides", "", [1] + [int(s.size[0]) for s in squares], curves, None))
    svg(path, panels, METHODS)


def draw_loss(path, losses, levels):
    panels = []
    for size, base in losses.items():
        curves = {}
        for m in METHODS:
            x = base[m][2][:, :-1] - base["base"][2][:, :-1]
            boot = x[draws(len(x))].mean(1)
            curves[m] = (x.mean(0), np.quantile(boot, 0.025, 0), np.quantile(boot, 0.975, 0))
        panels.append((f"{size}: loss less that of base", "noise level t", "", [float(t[2:]) for t in levels], curves, None))
    svg(path, panels, METHODS)


# ---------------------------------------------------------------------------------------------- the document

def write(csv_path, doc_path):
    data = read(csv_path)
    facts = data["run", "", ""][""]
    sizes = [Size(data, s) for s in SIZES if data["picture", s, "base"]]
    one = Size(data, "1x")
    losses, tables, levels = {}, {}, None
    for s in SIZES:
        if data["loss", s, "base"]:
            tables[s], losses[s], levels = loss_table(data, s, METHODS)
    folder = os.path.dirname(os.path.abspath(doc_path))
    draw_sizes(os.path.join(folder, "evidence-sizes.svg"), sizes, one)
    draw_loss(os.path.join(folder, "evidence-loss.svg"), losses, levels)
    ordering = ordering_table(sizes, losses)
    n = {s.size: s.n for s in sizes}
    L = []
    L += ["# What the position methods do, measured on the demo model", "",
          "Generated by `models/demo/evaluate/tables.py` from [evidence.csv](evidence.csv); do not edit. The demo model was trained at 256 × 256 px (16 × 16 tokens,",
          "14 waves per axis), and on some pictures up to 512 px wide, of drawn landscapes; so the truth at any size is known: the same scenes drawn",
          "larger. Nothing here says anything about FLUX itself; it says which of the paper's orderings (arXiv 2510.20766) hold for this model, and",
          "where the program's methods can be told apart at all.", "",
          f"**This run**: budget `{facts['budget']}`, {facts['program']}, model {facts['model']} (first digits of the SHA-256 of its transformer and VAE), "
          f"{facts['steps']:.0f} steps, guidance {facts['guidance']:g}, {facts['date']}; pictures per method: "
          + ", ".join(f"{k} {v}" for k, v in n.items())
          + ". In brackets: 95 % of 1000 bootstrap resamples of the prompts.", ""]
    if facts["budget"] != "full":
        L += ["> Not the full measurement: a run made to exercise everything. Its intervals are wide, and what it leaves open says nothing; a full run may decide.", ""]

    # tables 1 and 8, figure 5
    L += ["## Structure and detail by size (after the paper's table 1)", "",
          "*one disc*: pictures with exactly one sun or moon. *one horizon*: pictures whose sky and land do not start again. *spectrum*: root mean",
          "square over octaves of the difference of mean power to the truth at that size. *finest octave*: that difference alone (below 0: too",
          "smooth). *layout*: Fréchet distance of 12 × 12 thumbnails, in their 4 main modes. The last line is what the truth itself gets (for",
          "distances: as many true pictures against the others).", ""]
    for s in sizes:
        if s.size != "panorama":
            L += [f"### {s.size}: {int(s.size[0]) * 256} × {int(s.size[0]) * 256} px, {s.n} prompts", ""] + size_table(s) + [""]
        if s.size == "2x":
            L += ["![the first prompts at 2x by every method](evidence-2x.png)", "",
                  "The first five prompts at 2x. From left to right: " + ", ".join(NAMES.values()) + "; last the true scene of the caption.", ""]
    f = one.figures["base"]
    L += [f"At the training size, where all methods are the same ({one.n} prompts): one disc {share(f['disc'])} %, one horizon {share(f['horizon'])} %, "
          f"spectrum {number(f['spectrum'], 1)} dB, layout {number(f['layout'], 2)} (floor {one.floor_layout:.2f}).", "",
          "![by size](evidence-sizes.svg)", "", "After the paper's figure 5. Dashed: the dynamic methods.", ""]
    for s in sizes:
        if s.size == "panorama":
            L += [f"## Panorama (after table 8): 768 × 256 px, {s.n} prompts", "",
                  "`base_resolution: 512`: the model has seen pictures of this height up to 512 px wide; this is half as wide again.", ""] + size_table(s)
            L += ["", "![the first panoramas by every method](evidence-panorama.png)", "",
                  "The first three prompts, three rows each: " + ", ".join(NAMES.values()) + ", the true scene.", ""]

    # loss
    L += ["## Flow-matching loss on true pictures", "",
          "`--loss`: mean of (velocity − (noise − clean))² on true pictures of that size, encoded by the VAE, by noise level t (1 is noise). It needs no sampler, no",
          "counter and few pictures, and is the sharpest measure here. Bold: the least of its column.", ""]
    for s, lines in tables.items():
        count_of = len(losses[s]["base"][2])
        L += [f"### {s}, {count_of} pictures", ""] + lines + [""]
    L += ["![loss by noise level](evidence-loss.svg)", ""]
    for s, base in losses.items():
        means = np.array([base[m][0][:-1] for m in METHODS])
        best = [METHODS[i] for i in means.argmin(0)]
        runs = []
        for t, m in zip(levels, best):
            if runs and runs[-1][0] == m:
                runs[-1][2] = t[2:]
            else:
                runs.append([m, t[2:], t[2:]])
        L += [f"- {s}: best at each level from noise to picture: " + ", ".join(f"{NAMES[m]} (t {a}{'' if a == b else ' to ' + b})" for m, a, b in runs)
              + f". Picking per level would give {means.min(0).mean():.3f}; the best single method, {NAMES[METHODS[int(means.mean(1).argmin())]]}, has {means.mean(1).min():.3f}."]
    L += [""]
    from_plan = [m for (k, s, m) in data if k == "loss" and s == "2x" and m not in METHODS and data[k, s, m]]
    if from_plan:
        for title, pick in (("Clocks of Dy-NTK (after table 5), loss at 2x", [m for m in from_plan if m.startswith("dy-ntk")]),
                            ("Parts of Dy-YaRN (after table 6), loss at 2x", [m for m in from_plan if m.startswith("dy-yarn")])):
            L += [f"### {title}", ""] + loss_table(data, "2x", ["ntk" if "ntk," in pick[0] else "yarn"] + pick)[0] + [""]

    # orderings
    L += ["## Which orderings hold", "",
          "Of each pair the second, against the first, on the same prompts: *better* or *worse* when the 95 % interval of the difference leaves out 0,",
          "*open* otherwise; *few*: under 6 pictures, no verdict.", ""] + ordering + [""]
    claims = [(("ntk", "dy-ntk"), "Dy-NTK over NTK (tables 1, 3)"), (("yarn", "dy-yarn"), "Dy-YaRN over YaRN (tables 1, 2, 8)"),
              (("pi", "dy-pi"), "Dy-PI over PI"), (("base", "yarn"), "YaRN over the model as it is (table 1, figure 5)"),
              (("base", "dy-yarn"), "Dy-YaRN over the model as it is (table 1, figure 5)"), (("time-aware", "dy-yarn"), "Dy-YaRN over time-aware (table 1, v2)")]
    L += ["| the paper's claim | here: cells for it | against it | open |", "|---|---|---|---|"]
    for pair, text in claims:
        c = count(ordering, pair)
        L.append(f"| {text} | {c['better']} | {c['worse']} | {c['open']} |")
    L += ["", "Why some do not hold here (the pilot's findings, and what the tables above show):", "",
          "- With 16 patches only the first 2 of 14 waves turn fully within the trained length (FLUX: 8 of 28). YaRN leaves wave 0 native and slows wave 1",
          "  by 8 % of the way only (`--plot-positions`), and these are what the model tells place by.",
          "- The dynamic methods give slow waves back late and in few jumps: 14 waves and rounded ramps.",
          "- Drawn scenes tie content to place far more than photographs do, also when little noise is left; returning to native waves then costs.",
          "- Dy-YaRN keeps YaRN's factor on the logits to the end, also where its waves are native again.", ""]

    # tools
    adherence = data["adherence", "1x", "base"]
    L += ["## Prompts", "",
          f"{int(next(iter(adherence.values()))['n'])} pictures at the training size, 28 steps, one seed each, none left out; what the checker finds of what was asked. The checker itself, on 500 true scenes "
          "it was not fitted on (a cloudy sky whose clouds do not show counts as clear): right, and with the captions shuffled, the mean of 400 shuffles (in brackets what chance gives).", "",
          "| attribute | present, % of pictures | checker right, % | captions shuffled, % |", "|---|---|---|---|"]
    for a, m in adherence.items():
        t = data["tool", "", "checker"].get(a)
        L.append(f"| {a} | {100 * m['share']:.1f} | " + (f"{100 * t['right']:.1f} | {100 * t['shuffled']:.1f} ({100 * t['chance']:.1f}) |" if t else "| |"))
    L += ["", "## The counters themselves", "", "Counted right on pictures whose count is known:", "", "| | pictures | right, % |", "|---|---|---|"]
    for tool in ("discs", "horizons"):
        for kind, m in data["tool", "", tool].items():
            what = {"true": "true scenes", "two": "two discs" if tool == "discs" else "two scenes stacked", "none": "no disc", "three": "three scenes stacked"}[kind]
            L.append(f"| {tool}: {what} | {m['n']:.0f} | {100 * m['right']:.1f} |")
    L += ["", "Where a picture shows no scene any more (at 4x, often at 3x), one horizon is counted: read that column with the layout's.",
          "They were fitted on true scenes (blurred and stretched ones too), not on the model's pictures, whose discs are lumpier: a disc that a person",
          "would still call one may not be counted.", ""]
    with open(doc_path, "w") as f:
        f.write("\n".join(L))


if __name__ == "__main__":
    write(*sys.argv[1:])
