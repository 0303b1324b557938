"""Draws the training pictures: shards of 250 scenes as bytes plus their parameters, written one by one.

    data.py shards        fills $DEMO_STATE/data up to that many shards; two processes; goes on where it stopped
"""
import json
import multiprocessing
import os
import sys

import numpy as np

import scenes

STATE = os.environ.get("DEMO_STATE", "demo-state")
SHARD, SIZE = 250, 256


def write_shard(k):
    path = f"{STATE}/data/{k:04d}"
    if os.path.exists(path + ".npy"):
        return k
    rng = np.random.default_rng([7, k])
    pictures, lines = np.empty((SHARD, SIZE, SIZE, 3), np.uint8), []
    for n in range(SHARD):
        scene = scenes.sample_scene(rng)
        pictures[n] = scenes.to_bytes(scenes.render(scene, SIZE))
        lines.append(json.dumps(scene))
    with open(path + ".json", "w") as f:
        f.write("\n".join(lines))
    np.save(path + ".tmp.npy", pictures)
    os.replace(path + ".tmp.npy", path + ".npy")         # the shard exists once its pictures do
    return k


def load_shards(first=0):
    """Finished shards from `first` on: list of (pictures as a memory map, scenes), read in order up to the first gap."""
    out, k = [], first
    while os.path.exists(f"{STATE}/data/{k:04d}.npy"):
        with open(f"{STATE}/data/{k:04d}.json") as f:
            out.append((np.load(f"{STATE}/data/{k:04d}.npy", mmap_mode="r"), [json.loads(line) for line in f]))
        k += 1
    return out


if __name__ == "__main__":
    os.makedirs(f"{STATE}/data", exist_ok=True)
    with multiprocessing.Pool(2) as pool:
        for k in pool.imap(write_shard, range(int(sys.argv[1]))):
            print("shard", k, flush=True)
