"""Pictures of the model beside the true ones of the same captions:  sheet.py FOLDER OUT.png [--rows 4] [--columns 4]

FOLDER is that of `checker.py render` (or run.py's adherence/): picture k was asked for with the caption of true scene k.  In each pair
the left one is the model's.
"""
import argparse
import os

import numpy as np
from PIL import Image

import pictures
import plan

HEIGHT, GAP = 256, 12


def main():
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    a.add_argument("out")
    a.add_argument("--rows", type=int, default=4)
    a.add_argument("--columns", type=int, default=4)
    args = a.parse_args()
    w, h = 2 * HEIGHT + GAP, HEIGHT + GAP
    sheet = np.full((args.rows * h - GAP, args.columns * w - GAP, 3), 255, np.uint8)
    for k in range(args.rows * args.columns):
        y, x = k // args.columns * h, k % args.columns * w
        for i, picture in enumerate((pictures.read(os.path.join(args.folder, "1x", f"base.{k:03d}.png")), pictures.draw(plan.scene(k), HEIGHT))):
            sheet[y:y + HEIGHT, x + i * HEIGHT:x + (i + 1) * HEIGHT] = np.round(picture * 255)
    Image.fromarray(sheet).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
