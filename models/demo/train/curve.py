"""Draws the training curve:  curve.py OUT.svg    from $DEMO_STATE/curve.csv"""
import csv
import math
import sys

from model import STATE

WIDTH, HEIGHT, LEFT, BOTTOM = 760, 320, 50, 40
LINES = {("trunk", "128", "flow"): ("#2a6fc2", "half size"), ("trunk", "128", "guided"): ("#7fb0e6", "half size, every other picture guided"),
         ("trunk", "256", "flow"): ("#8fce6a", "whole size"), ("trunk", "256", "guided"): ("#1d7a4a", "whole size, every other picture guided"),
         ("finish", "256", "flow"): ("#e3a0ae", "finish, whole size"), ("finish", "256", "guided"): ("#c6506a", "finish, every other picture guided")}


def main():
    with open(f"{STATE}/curve.csv") as f:
        rows = list(csv.DictReader(f))
    branches = [i for i, r in enumerate(rows) if r["run"] == "finish"]
    kept, first = [], math.inf     # from the end of the last branch back: what was repeated after a kill, or left by a branch, counts once
    for r in reversed(rows[:branches[-1] + 1] if branches else rows):
        if float(r["pictures"]) < first:
            kept.append(r)
            first = float(r["pictures"])
    rows = kept[::-1]
    right = max(float(r["pictures"]) for r in rows)
    low, high = math.log(0.15), math.log(1.5)

    def x(p):
        return LEFT + (WIDTH - LEFT - 10) * p / right

    def y(loss):
        return 10 + (HEIGHT - BOTTOM - 10) * (high - math.log(min(max(loss, 0.15), 1.5))) / (high - low)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for v in (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5):
        out.append(f'<path d="M{LEFT} {y(v):.1f}H{WIDTH - 10}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>')
    step = 10 ** math.floor(math.log10(right)) / 2
    for i in range(int(right / step) + 1):
        out.append(f'<text x="{x(i * step):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{i * step / 1000:g}k</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 5}" text-anchor="middle">pictures seen; loss (log scale): mean square of the velocity, 50 steps each</text>')
    for n, (key, (colour, label)) in enumerate(LINES.items()):
        points = [f'{x(float(r["pictures"])):.1f},{y(float(r["loss"])):.1f}' for r in rows if (r["run"], r["px"], r["kind"]) == key]
        if points:
            out.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            out.append(f'<path d="M{WIDTH - 290} {24 + 17 * n}h22" stroke="{colour}" stroke-width="2"/><text x="{WIDTH - 262}" y="{28 + 17 * n}">{label}</text>')
    with open(sys.argv[1], "w") as f:
        f.write("\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main()
