#!/usr/bin/env python3
"""Writes noise/torch_cpu.json (with a current PyTorch) or noise/torch_cpu_legacy.json (with one whose bf16 normals are of
the legacy form; 1.13 and at least up to 2.7): what torch.randn gives for a CPU generator, and its MT19937 words.

usage: make_noise_vectors.py OUTPUT.json
"""
import json
import sys

import torch

SEEDS = [0, 42, -1, 2**32 + 42, 2**63 - 1]
# channels, latent rows, latent columns: fewer than 16 elements, exactly 16, tails of 4, 12, 4, and none
SMALL = [(1, 2, 2), (3, 2, 2), (4, 2, 2), (5, 2, 2), (7, 2, 2), (1, 6, 6), (16, 4, 6)]
LARGE = (16, 128, 128)
STRIDE = 997


def words(seed, first, count):
    """Words of the stream: a full-range int64 takes two, high one first."""
    g = torch.Generator().manual_seed(seed)
    n = (first + count + 1) // 2
    pairs = torch.empty(n, dtype=torch.int64).random_(-2**63, None, generator=g).tolist()
    flat = [w for p in pairs for w in ((p >> 32) & 0xFFFFFFFF, p & 0xFFFFFFFF)]
    return {"seed": str(seed), "first": first, "values": flat[first:first + count]}


def normals(seed, shape, dtype, stride=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=dtype).float().reshape(-1)[::stride]
    return {"seed": str(seed), "shape": list(shape), "bf16": dtype is torch.bfloat16, "stride": stride,
            "values": [float(format(v, ".9g")) for v in x.tolist()]}


def main():
    cases = []
    for dtype in (torch.float32, torch.bfloat16):
        cases += [normals(seed, shape, dtype) for seed in SEEDS[:3] for shape in SMALL]
        cases += [normals(seed, SMALL[-1], dtype) for seed in SEEDS[3:]]
        cases += [normals(seed, LARGE, dtype, STRIDE) for seed in SEEDS[:2]]
    cpu = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else "unknown"
    doc = {"torch": torch.__version__, "cpu_capability": cpu,
           "words": [words(seed, first, 8) for seed in SEEDS for first in (0, 620, 1244)], "cases": cases}
    with open(sys.argv[1], "w") as fh:
        fh.write("{" + ",\n".join(json.dumps(k) + ": " + json.dumps(doc[k]) for k in ("torch", "cpu_capability")))
        for k in ("words", "cases"):
            fh.write(",\n" + json.dumps(k) + ": [\n" + ",\n".join(json.dumps(c) for c in doc[k]) + "\n]")
        fh.write("}\n")


if __name__ == "__main__":
    main()
