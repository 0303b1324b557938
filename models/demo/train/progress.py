"""How far a training is: pictures of full prompts by its averaged weights, judged by ../evaluate/checker.py.

    progress.py [--from trunk] [--px 128] [--count 100] [--cfg 3] [--guidance 1] [--sheet OUT.png]

By PyTorch, in two processes, in a few minutes; half-size pictures are enlarged for the checker (of 100 true ones treated so it has 98 to
100 right, by attribute).  --cfg is true guidance, for a run that has not learned the distilled one; one that has takes --cfg 1 --guidance 3.
"""
import argparse
import os
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import multiprocessing

import tiles
from model import STATE, Model, sample

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "evaluate"))

import checker  # noqa: E402
import plan  # noqa: E402

TOGETHER, STEPS, MU = 10, 28, 1.15


def render(job):
    """[((asked, found, discs), picture in bytes)] of the prompts `first` to `last`."""
    args, first, last = job
    torch.set_num_threads(1)
    state = torch.load(f"{STATE}/{args.source}.pt", weights_only=False)
    model = Model.of(state["ema"]).eval()
    vae = AutoencoderKL.from_pretrained(os.path.join(HERE, "..", "vae")).eval()
    rows = []
    for k in range(first, last, TOGETHER):
        asked = [plan.attributes(plan.scene(n)) for n in range(k, min(k + TOGETHER, last))]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            z = sample(model, [plan.prompt(a) for a in asked], args.px // 16, args.px // 16, STEPS, MU, args.cfg, args.guidance, k, 256 // args.px)
        with torch.no_grad():
            x = vae.decode(z.float() / vae.config.scaling_factor + vae.config.shift_factor).sample
            x = torch.nn.functional.interpolate(x, size=(256, 256), mode="bicubic") if args.px != 256 else x
        x = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        rows += [((a, *checker.judge(p.astype(np.float32) / 255)), p) for a, p in zip(asked, x)]
    return state["images"], rows


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--from", dest="source", default="trunk")
    a.add_argument("--px", type=int, choices=[128, 256], default=128)
    a.add_argument("--count", type=int, default=100)
    a.add_argument("--cfg", type=float, default=plan.GUIDANCE)
    a.add_argument("--guidance", type=float, default=1.0)
    a.add_argument("--sheet")
    args = a.parse_args()
    half = args.count // 2
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(render, [(args, 0, half), (args, half, args.count)])
    rows = parts[0][1] + parts[1][1]
    print(f"{args.source}, {parts[0][0]} pictures seen; {len(rows)} prompts at {args.px} px, guidance {args.guidance:g}, true guidance {args.cfg:g}")
    checker.tell([judged for judged, _ in rows])
    if args.sheet:
        tiles.save(args.sheet, [p for _, p in rows], 8)


if __name__ == "__main__":
    main()
