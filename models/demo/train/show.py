"""Renders a sheet with diffusers' own pipeline:  show.py FOLDER OUT.png [--guidance 3] [--steps 28] [--mu 1.15] [--count 12]"""
import argparse

import numpy as np
import torch
from diffusers import FluxPipeline

import tiles

PROMPTS = [
    "a serene mountain landscape at dawn with a lake, snowy peaks and a clear sky, the sun high on the left",
    "a dramatic mountain landscape at sunset with a pine forest, rocky peaks and a cloudy sky, the sun low in the center",
    "a misty mountain landscape at noon with a meadow, snowy peaks and a clear sky, the sun on the right",
    "a serene mountain landscape at night with a lake, rocky peaks and a clear sky, the moon high on the right",
    "a dramatic mountain landscape at dusk with a lake, snowy peaks and a cloudy sky, the sun on the left",
    "a serene mountain landscape at noon with a pine forest, rocky peaks and a cloudy sky, the sun high in the center",
    "a misty mountain landscape at sunrise with a pine forest, rocky peaks and a clear sky, the sun on the right",
    "a dramatic mountain landscape at night with a meadow, snowy peaks and a cloudy sky, the moon on the left",
    "a serene mountain landscape at sunset with a meadow, rocky peaks and a clear sky, the sun low on the right",
    "mountains at noon with a lake",
    "a mountain landscape at twilight with a forest",
    "a serene mountain landscape at sunset with a lake, snowy peaks and a clear sky, the sun in the center",
]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    a.add_argument("out")
    a.add_argument("--guidance", type=float, default=3.0)
    a.add_argument("--steps", type=int, default=28)
    a.add_argument("--mu", type=float, default=1.15, help="time shift: 1.15 is dype-dist's default, diffusers' own is 0.5 at 256 px")
    a.add_argument("--cfg", type=float, default=1.0, help="true guidance by a second pass, for a model without distilled guidance")
    a.add_argument("--count", type=int, default=12)
    a.add_argument("--size", type=int, default=256)
    a.add_argument("--seed", type=int, default=0)
    args = a.parse_args()
    pipe = FluxPipeline.from_pretrained(args.folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.register_to_config(base_shift=args.mu, max_shift=args.mu)
    pictures = []
    for n in range(args.count):
        true = dict(negative_prompt="", true_cfg_scale=args.cfg) if args.cfg > 1 else {}
        p = pipe(PROMPTS[n % len(PROMPTS)], height=args.size, width=args.size, guidance_scale=args.guidance, num_inference_steps=args.steps,
                 max_sequence_length=32, generator=torch.Generator().manual_seed(args.seed + n), output_type="np", **true).images[0]
        pictures.append((p * 255 + 0.5).astype(np.uint8))
    tiles.save(args.out, pictures, min(6, args.count))


if __name__ == "__main__":
    main()
