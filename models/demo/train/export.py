"""Writes the model folder in bf16.

    export.py OUT [--from finish|trunk] [--vae]      transformer and text encoders from the averaged weights of that run;
                                                     --vae: the autoencoder from vae-final.pt or vae.pt, else it stays as it is
"""
import argparse
import json
import os

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from model import STATE, BlockCode, Model
from vae import autoencoder


def main():
    a = argparse.ArgumentParser()
    a.add_argument("out")
    a.add_argument("--from", dest="source", default="finish")
    a.add_argument("--vae", action="store_true")
    args = a.parse_args()
    out = args.out
    state = torch.load(f"{STATE}/{args.source}.pt", weights_only=False)
    model = Model.of(state["ema"])
    bf16 = torch.bfloat16
    model.transformer.to(bf16).save_pretrained(f"{out}/transformer")
    model.clip.to(bf16).save_pretrained(f"{out}/text_encoder")
    model.t5.to(bf16).save_pretrained(f"{out}/text_encoder_2")
    model.clip_tokenizer.save_pretrained(f"{out}/tokenizer")
    model.t5_tokenizer.save_pretrained(f"{out}/tokenizer_2")

    if args.vae:
        vae = autoencoder(scaling_factor=round(BlockCode().factor, 6))
        path = f"{STATE}/vae-final.pt" if os.path.exists(f"{STATE}/vae-final.pt") else f"{STATE}/vae.pt"
        if os.path.exists(path):
            for p, e in zip(vae.parameters(), torch.load(path, weights_only=False)["ema"]):
                p.data.copy_(e)
        vae.to(bf16).save_pretrained(f"{out}/vae")

    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
                                    base_image_seq_len=256, max_image_seq_len=4096).save_pretrained(f"{out}/scheduler")
    index = {"_class_name": "FluxPipeline", "_diffusers_version": "0.39.0",
             "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
             "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "T5Tokenizer"],
             "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    with open(f"{out}/model_index.json", "w") as f:
        json.dump(index, f, indent=2)
        f.write("\n")
    for folder, _, names in os.walk(out):
        for name in names:
            if name == "added_tokens.json":                       # repeats what tokenizer_config.json says
                os.remove(os.path.join(folder, name))
            else:
                os.chmod(os.path.join(folder, name), 0o644)
    parts = {p: sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(f"{out}/{p}") for n in names)
             for p in ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")}
    print(f"{args.source}: {state['steps']} steps, {state['images']} pictures;", parts, "sum", sum(parts.values()))


if __name__ == "__main__":
    main()
