"""The whole measurement: renders, draws the truth, measures, writes one CSV and, from it, docs/evidence.md with its drawings.

    run.py --program PATH [--model DIR] [--out DIR] [--budget full|small|smoke] [--ranks N] [--threads N] [--csv FILE] [--doc FILE]

Goes on where it stopped: finished pictures are skipped by the program itself, everything else is kept in --out. `full` takes
under two hours on two free cores; `small` some ten minutes, with intervals as wide as that; `smoke` only shows that all parts work.
"""
import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import subprocess
import time

import numpy as np

import checker
import discs
import encode
import ground
import pictures
import plan
import program
import tables
import tiles  # of ../train, which pictures has put on the path
from pictures import F

BANDS = 9          # octaves of cycles per height: 1 to 2, 2 to 4, ...
THUMB, MODES = 12, 8
HEAD = ["kind", "size", "method", "item", "measure", "value"]


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


class Run:
    def __init__(self, args):
        self.a, self.budget, self.rows = args, plan.BUDGETS[args.budget], []
        self.model = os.path.abspath(args.model)
        os.makedirs(args.out, exist_ok=True)

    def path(self, *names):
        return os.path.join(self.a.out, *names)

    def cached(self, name, make):
        """JSON of something that takes long, made once; under its name only when whole."""
        path = self.path(name + ".json")
        if not os.path.exists(path):
            value = make()
            with open(path + ".tmp", "w") as f:
                json.dump(value, f)
            os.replace(path + ".tmp", path)
        with open(path) as f:
            return json.load(f)

    def add(self, kind, size, method, item, measures):
        self.rows += [[kind, size, method, item, m, v] for m, v in measures.items()]

    # ---- pictures

    def render(self, size):
        with open(self.path(size + ".yaml"), "w") as f:
            f.write(plan.job(self.model, size, self.budget["prompts"][size], self.budget["steps"], methods_of(size)))
        program.call(self.a, self.a.out, size + ".yaml")

    def layouts(self, size):
        """Thumbnails of true scenes of this aspect: [n, 432]; composition does not depend on the size they are drawn at."""
        w, h = plan.SIZES[size]
        name = f"layouts-{w // h}"

        def make():
            say(f"{self.budget['layouts']} true layouts of aspect {w // h}")
            return [thumbnail(pictures.draw(plan.scene(k, w / h, salt=4), 128)).tolist() for k in range(self.budget["layouts"])]
        return np.array(self.cached(name, make), F)

    def measure(self, size):
        w, h = plan.SIZES[size]
        thumbs = self.layouts(size)
        mean = thumbs.mean(0)
        basis = np.linalg.svd(thumbs - mean, full_matrices=False)[2][:MODES]
        for k, t in enumerate(thumbs):
            self.add("layout", size, "truth", k, {f"layout_{i}": round(float(v), 5) for i, v in enumerate((t - mean) @ basis.T)})

        def truth():
            say(f"{size}: {self.budget['truth']} true pictures")
            return self.together(look_at_scene, [(k, w / h, h, mean, basis) for k in range(self.budget["truth"])])
        for k, m in enumerate(self.cached(f"truth-{size}", truth)):
            self.add("picture", size, "truth", k, m)
        for method in methods_of(size):
            def rendered():
                say(f"{size}: looking at {method}")
                return self.together(look_at_file, [(self.path(size, f"{method}.{k:03d}.png"), mean, basis) for k in range(self.budget["prompts"][size])])
            for k, m in enumerate(self.cached(f"pictures-{size}-{method}-{self.budget['prompts'][size]}", rendered)):
                self.add("picture", size, method, k, m)

    @staticmethod
    def together(look, items):
        with multiprocessing.Pool() as pool:
            return pool.starmap(look, items, chunksize=1)

    # ---- loss

    def loss(self, size):
        w, h = plan.SIZES[size]
        os.makedirs(self.path("clean"), exist_ok=True)
        coder = None
        for k in range(self.budget["loss"][size]):
            path = self.path("clean", f"{size}.{k:03d}.safetensors")
            if not os.path.exists(path):
                coder = coder or encode.Encoder(self.model)
                say(f"{size}: latent of true picture {k}")
                encode.write_tensor(path + ".tmp", "latents", coder.encode(pictures.draw(plan.scene(k, w / h, salt=3), h)))
                os.replace(path + ".tmp", path)
        positions = dict(plan.METHODS, **(plan.ABLATIONS if size == "2x" else {}))
        for i, (name, position) in enumerate(positions.items()):
            stem = f"loss-{size}-{i:02d}"
            if not os.path.exists(self.path(stem + ".csv")):
                with open(self.path(stem + ".yaml"), "w") as f:
                    f.write(plan.loss_job(self.model, size, self.budget["loss"][size], self.budget["levels"], {name: position}))
                say(f"{size}: loss of {name}")
                program.call(self.a, self.a.out, "--loss", stem + ".part.csv", stem + ".yaml")          # the program writes after each picture
                os.replace(self.path(stem + ".part.csv"), self.path(stem + ".csv"))
            with open(self.path(stem + ".csv")) as f:
                for r in csv.DictReader(f):
                    self.add("loss", size, name, int(r["picture"].split(".")[1]), {f"t={float(r['t']):.2f}": round(float(r["loss"]), 6)})

    # ---- the tools themselves

    def tools(self):
        say("counters and checker on true scenes")
        for kind, (share, n) in self.cached("tool-discs", lambda: discs.check(200)[0]).items():
            self.add("tool", "", "discs", kind, {"right": round(share, 4), "n": n})
        for kind, (share, n) in self.cached("tool-horizons", lambda: ground.check(200)[0]).items():
            self.add("tool", "", "horizons", kind, {"right": round(share, 4), "n": n})
        for a, (right, shuffled, chance) in self.cached("tool-checker", lambda: checker.check(500)[0]).items():
            self.add("tool", "", "checker", a, {"right": round(right, 4), "shuffled": round(shuffled, 4), "chance": round(chance, 4)})

    def adherence(self):
        def make():
            say("prompts: rendering and judging")
            return checker.shares(checker.render(argparse.Namespace(**dict(
                vars(self.a), out=self.path("adherence"), count=self.budget["adherence"], steps=28))))
        for a, share in self.cached("adherence", make).items():
            self.add("adherence", "1x", "base", a, {"share": round(share, 4), "n": self.budget["adherence"]})

    def sheet(self, size, prompts, height, per_row):
        """The first prompts by every method, the true scene last, so high; beside the document."""
        w, h = plan.SIZES[size]
        cells = []
        for k in range(prompts):
            of_prompt = [pictures.read(self.path(size, f"{m}.{k:03d}.png")) for m in plan.METHODS] + [pictures.draw(plan.scene(k, w / h), h)]
            cells += [pictures.scenes.to_bytes(pictures.resize(p, height)) for p in of_prompt]
        tiles.save(os.path.join(os.path.dirname(os.path.abspath(self.a.doc)), f"evidence-{size}.png"), cells, per_row, 4)

    def facts(self):
        h = hashlib.sha256()
        for name in ("transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
            with open(os.path.join(self.model, name), "rb") as f:
                h.update(f.read())
        version = subprocess.run([os.path.abspath(self.a.program), "--version"], capture_output=True, text=True).stdout.strip()
        self.add("run", "", "", "", {"budget": self.a.budget, "model": h.hexdigest()[:12], "program": version, "steps": self.budget["steps"],
                                     "guidance": plan.GUIDANCE, "date": time.strftime("%Y-%m-%d")})

    def write(self):
        with open(self.a.csv + ".tmp", "w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(HEAD)
            w.writerows(self.rows)
        os.replace(self.a.csv + ".tmp", self.a.csv)


def methods_of(size):
    return ["base"] if size == "1x" else list(plan.METHODS)   # at the training size all methods are the same


def thumbnail(img):
    w = round(THUMB * img.shape[1] / img.shape[0])
    small = pictures.resize(img, THUMB, w)
    return (small if w == THUMB else pictures.resize(small, THUMB, THUMB)).ravel()


def bands(img):
    """Mean power of the luma in octaves of cycles per height, dB; NaN (None in JSON) above the Nyquist frequency."""
    l = pictures.luma(img).astype(np.float64)
    l -= l.mean()
    p = np.abs(np.fft.fft2(l)) ** 2 / l.size
    f = np.hypot(np.fft.fftfreq(l.shape[0])[:, None], np.fft.fftfreq(l.shape[1])[None]) * l.shape[0]
    out = []
    for i in range(BANDS):
        m = (f >= 2 ** i) & (f < 2 ** (i + 1))
        if 2 ** (i + 1) <= l.shape[0] // 2 * 1.001:
            out.append(10 * np.log10(p[m].mean() + 1e-12))
    return out


def look(img, mean, basis):
    """What is measured of one picture."""
    out = dict(discs=len(discs.find(img)), horizons=ground.horizons(img))
    out.update({f"band_{i}": round(float(v), 4) for i, v in enumerate(bands(img))})
    out.update({f"layout_{i}": round(float(v), 5) for i, v in enumerate((thumbnail(img) - mean) @ basis.T)})
    return out


def look_at_file(path, mean, basis):
    return look(pictures.read(path), mean, basis)


def look_at_scene(k, aspect, height, mean, basis):
    return look(pictures.draw(plan.scene(k, aspect, salt=5), height), mean, basis)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    program.add_options(p, required=True)
    p.add_argument("--out", default="evidence")
    p.add_argument("--budget", choices=list(plan.BUDGETS), default="full")
    root = os.path.join(pictures.HERE, "..", "..", "..")
    p.add_argument("--csv", default=os.path.join(root, "docs", "evidence.csv"))
    p.add_argument("--doc", default=os.path.join(root, "docs", "evidence.md"))
    r = Run(p.parse_args())
    r.facts()
    r.tools()
    for size in r.budget["prompts"]:
        say(f"{size}: rendering")
        r.render(size)
        r.measure(size)
    for size in r.budget["loss"]:
        r.loss(size)
    r.adherence()
    r.write()
    r.sheet("2x", prompts=5, height=160, per_row=len(plan.METHODS) + 1)
    r.sheet("panorama", prompts=3, height=128, per_row=3)
    tables.write(r.a.csv, r.a.doc)


if __name__ == "__main__":
    main()
