"""Pictures as arrays: reading, resizing, the scenes of ../train."""
import os
import sys

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "train"))

import scenes  # noqa: E402  (numpy only)

F = np.float32


def read(path):
    """[H, W, 3] in [0, 1]"""
    with Image.open(path) as im:
        return np.asarray(im.convert("RGB"), F) / 255


def draw(scene, height):
    """The true picture of a scene as a reader of its PNG would see it."""
    return scenes.to_bytes(scenes.render(scene, height)).astype(F) / 255


def resize(img, height, width=None):
    """Area means (box filter) to height; width in proportion unless given."""
    h, w = img.shape[:2]
    width = width or max(1, round(w * height / h))
    if (h, w) == (height, width):
        return img
    planes = [Image.fromarray(np.ascontiguousarray(img[..., c]), "F").resize((width, height), Image.BOX) for c in range(3)]
    return np.stack([np.asarray(p, F) for p in planes], -1)


def luma(img):
    return img @ np.array([0.299, 0.587, 0.114], F)
