"""Trains the AutoencoderKL whose latents are the block code of model.py: its decoder reads them, its encoder writes them.

    vae.py --steps N [--polish]      continues from $DEMO_STATE/vae.pt; constant rate, or with --polish towards zero into vae-final.pt
"""
import argparse
import csv
import os
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

import data
from model import STATE, BlockCode, to_float
from muon import Muon

CROPS = ((64, 6), (96, 3), (128, 2), (256, 1))   # size and count
SPREAD = 0.05                               # noise on the latents while the decoder learns


def autoencoder(scaling_factor=1.0):
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(24, 32, 64, 96), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=256, force_upcast=False,
        scaling_factor=scaling_factor, shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=True)


def start_as_identity(net):
    for name, p in net.named_parameters():
        if "resnets" in name and "conv2" in name or "to_out.0" in name:
            torch.nn.init.zeros_(p)


def crops(shards, rng):
    size, count = CROPS[rng.choice(4, p=[0.3, 0.3, 0.35, 0.05])]          # crops of 256 come from square pictures alone
    if size == 256:
        shards = [s for s in shards if s.shape[1] == s.shape[2] == size]
    out = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        pictures = shards[rng.integers(len(shards))]
        y, x = (8 * rng.integers(0, max(0, side - size) // 8 + 1) for side in pictures.shape[1:3])
        out[i] = pictures[rng.integers(len(pictures)), y:y + size, x:x + size]
        if rng.random() < 0.5:
            out[i] = out[i, :, ::-1]
    return to_float(out)


def differences(a):
    return a[..., 1:, :] - a[..., :-1, :], a[..., 1:] - a[..., :-1]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--steps", type=int, required=True)
    a.add_argument("--rate", type=float, default=2e-3)
    a.add_argument("--polish", action="store_true")
    a.add_argument("--threads", type=int, default=1)
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if not os.path.exists(f"{STATE}/blocks.npz"):
        BlockCode.fit(to_float(np.concatenate([s[:60] for s in data.load_pictures() if s.shape[1] == 256][:8])))
    code = BlockCode()
    net = autoencoder()
    start_as_identity(net)
    net = net.to(memory_format=torch.channels_last)
    params = list(net.parameters())
    matrices = [p for n, p in net.named_parameters() if p.dim() >= 2 and "conv_in" not in n and "conv_out" not in n]
    chosen = set(map(id, matrices))
    opts = [Muon(matrices, args.rate), torch.optim.AdamW([p for p in params if id(p) not in chosen], args.rate, betas=(0.9, 0.99), weight_decay=0.0)]
    ema = [p.detach().clone() for p in params]
    path, final = f"{STATE}/vae.pt", f"{STATE}/vae-final.pt"
    step = first = 0
    source = final if args.polish and os.path.exists(final) and torch.load(final, weights_only=False)["step"] < args.steps else path
    if os.path.exists(source):
        s = torch.load(source, weights_only=False)
        net.load_state_dict(s["net"])
        for e, v in zip(ema, s["ema"]):
            e.copy_(v)
        for o, d in zip(opts, s["opts"]):
            o.load_state_dict(d)
        step = s["step"]
        first = (s["first"] if source == final else step) if args.polish else 0
    target_path = final if args.polish else path
    rng = np.random.default_rng([3, step])
    shards, begun, seen = data.load_pictures(), time.time(), []
    while step < args.steps:
        rate = args.rate * min(1.0, (step + 1) / 50) * (max(0.01, 1 - (step - first) / (args.steps - first)) if args.polish else 1.0)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = rate
        x = crops(shards, rng)
        z = code.encode(x) / code.factor
        y = net.decoder((z + SPREAD * torch.randn_like(z)).contiguous(memory_format=torch.channels_last))
        loss = (y - x).abs().mean() + sum((p - q).abs().mean() for p, q in zip(differences(y), differences(x)))
        loss.backward()
        if step % 2 == 0:
            mean, logvar = net.encoder(x.contiguous(memory_format=torch.channels_last)).chunk(2, 1)
            miss = ((mean - z) ** 2).mean()
            (miss + 1e-3 * ((logvar - 2 * np.log(SPREAD)) ** 2).mean()).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - min(0.995, step / (step + 10)))
        seen.append([((y - x) ** 2).mean().item(), miss.item()])
        if step % 50 == 0:
            mse, far = np.mean(seen, 0)
            seen = []
            print(f"{step} {time.time() - begun:.0f} s  decoder {10 * np.log10(4 / mse):.2f} dB  encoder {far:.4f}  rate {rate:.1e}", flush=True)
            with open(f"{STATE}/vae.csv", "a", newline="") as f:
                csv.writer(f).writerow(["polish" if args.polish else "trunk", step, f"{10 * np.log10(4 / mse):.2f}", f"{far:.4f}", f"{rate:.2e}"])
        if step % 200 == 0 or step == args.steps:
            torch.save(dict(net=net.state_dict(), ema=ema, opts=[o.state_dict() for o in opts], step=step, first=first), target_path + ".tmp")
            os.replace(target_path + ".tmp", target_path)


if __name__ == "__main__":
    main()
