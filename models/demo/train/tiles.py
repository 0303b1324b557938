"""Many pictures in one PNG."""
import numpy as np
from PIL import Image


def save(path, pictures, per_row, gap=0):
    """Pictures of one size, [H, W, 3] bytes, in rows; with white gaps of so many pixels between them."""
    h, w = pictures[0].shape[:2]
    rows = -(-len(pictures) // per_row)
    sheet = np.full((rows * (h + gap) - gap, per_row * (w + gap) - gap, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // per_row * (h + gap), k % per_row * (w + gap)
        sheet[y:y + h, x:x + w] = picture
    Image.fromarray(sheet).save(path, optimize=True)
