"""Draws the training pictures: shards of 250 scenes as bytes, their parameters, and their latents by the autoencoder.

    data.py shards        fills $DEMO_STATE/data up to that many shards; two processes; goes on where it stopped
    data.py latents       the latents of all shards, by the autoencoder of ../vae; goes on where it stopped, waits for no shard

A shard k is data/k.npy [250, H, W, 3] bytes and data/k.json, a line per scene; its latents are k.256.npy and k.128.npy (the picture
at half its size), [250, 2, 16, h, w] half precision, as drawn and mirrored.
"""
import json
import multiprocessing
import os
import sys

import numpy as np

import scenes

STATE = os.environ.get("DEMO_STATE", "demo-state")
SHARD = 250
# Height and width of shard k. The first 48 have about 256 tokens, as the buckets of FLUX's training have one area; the rest are
# wider and larger, so that neither the number of tokens nor that of columns is always the same.
SHAPES = ((256, 256), (160, 384), (256, 256), (192, 320), (256, 256), (160, 384), (256, 256), (320, 192))
WIDE, WIDE_SHAPES = 48, ((256, 512), (160, 512), (256, 384))


def shape_of(k):
    return SHAPES[k % len(SHAPES)] if k < WIDE else WIDE_SHAPES[k % len(WIDE_SHAPES)]


def save(path, array):
    """A file exists once it is whole."""
    np.save(path + ".tmp.npy", array)
    os.replace(path + ".tmp.npy", path)


def write_shard(k):
    path = f"{STATE}/data/{k:04d}"
    if os.path.exists(path + ".npy"):
        return k
    rng = np.random.default_rng([8, k])
    h, w = shape_of(k)
    pictures, lines = np.empty((SHARD, h, w, 3), np.uint8), []
    for n in range(SHARD):
        scene = scenes.sample_scene(rng, w / h)
        pictures[n] = scenes.to_bytes(scenes.render(scene, h, w))
        lines.append(json.dumps(scene))
    with open(path + ".json", "w") as f:
        f.write("\n".join(lines))
    save(path + ".npy", pictures)
    return k


def write_latents(vae, k, px):
    import torch
    from model import to_float
    path = f"{STATE}/data/{k:04d}"
    if os.path.exists(f"{path}.{px}.npy"):
        return
    pictures, out = np.load(path + ".npy", mmap_mode="r"), []
    with torch.inference_mode():
        for n in range(0, SHARD, 10):
            x = to_float(pictures[n:n + 10])
            x = torch.cat([x, x.flip(3)])
            if px == 128:
                x = torch.nn.functional.avg_pool2d(x, 2)
            with torch.autocast("cpu", torch.bfloat16):
                mean = vae.encoder(x.contiguous(memory_format=torch.channels_last)).chunk(2, 1)[0]
            z = ((mean.float() - vae.config.shift_factor) * vae.config.scaling_factor).half().numpy()
            out.append(np.stack([z[:len(z) // 2], z[len(z) // 2:]], 1))
    save(f"{path}.{px}.npy", np.concatenate(out))


def shards(ending, first=0):
    """Numbers of the shards from `first` on that have a file of this ending, up to the first gap."""
    k = first
    while os.path.exists(f"{STATE}/data/{k:04d}.{ending}"):
        yield k
        k += 1


def load_scenes(k):
    with open(f"{STATE}/data/{k:04d}.json") as f:
        return [json.loads(line) for line in f]


def load_pictures():
    return [np.load(f"{STATE}/data/{k:04d}.npy", mmap_mode="r") for k in shards("npy")]


if __name__ == "__main__":
    os.makedirs(f"{STATE}/data", exist_ok=True)
    if sys.argv[1] == "latents":
        import torch
        from diffusers import AutoencoderKL
        torch.set_num_threads(1)
        vae = AutoencoderKL.from_pretrained(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vae")).eval()
        vae = vae.to(memory_format=torch.channels_last)
        for px in (128, 256):                            # training begins with the half-size ones
            for k in shards("npy"):
                write_latents(vae, k, px)
                print(px, "latents", k, flush=True)
    else:
        with multiprocessing.Pool(2) as pool:
            for k in pool.imap(write_shard, range(int(sys.argv[1]))):
                print("shard", k, flush=True)
