"""Pictures of the model beside the true ones of the same captions:  sheet.py FOLDER OUT.png [--rows 4] [--columns 4]

FOLDER is that of `checker.py render` (or run.py's adherence/): picture k was asked for with the caption of true scene k.  In each pair
the left one is the model's.
"""
import argparse
import os

import numpy as np

import pictures
import plan
import tiles  # of ../train, which pictures has put on the path

HEIGHT, GAP = 256, 12


def main():
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    a.add_argument("out")
    a.add_argument("--rows", type=int, default=4)
    a.add_argument("--columns", type=int, default=4)
    args = a.parse_args()
    pairs = [np.concatenate([pictures.read(os.path.join(args.folder, "1x", f"base.{k:03d}.png")), pictures.draw(plan.scene(k), HEIGHT)], 1)
             for k in range(args.rows * args.columns)]
    tiles.save(args.out, [pictures.scenes.to_bytes(p) for p in pairs], args.columns, GAP)


if __name__ == "__main__":
    main()
