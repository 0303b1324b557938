"""Clean latents of true pictures: the encoder of the model's VAE (diffusers' AutoencoderKL, the mean) in numpy, packed as tokens.

    encode.py DIR OUT.safetensors PICTURE.png
"""
import json
import struct
import sys

import numpy as np

import pictures
from pictures import F


def read_tensors(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(n))
        data = f.read()
    out = {}
    for name, t in head.items():
        if name == "__metadata__":
            continue
        raw = data[t["data_offsets"][0]:t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            v = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(F)
        else:
            v = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[t["dtype"]]).astype(F)
        out[name] = v.reshape(t["shape"])
    return out


def write_tensor(path, name, x):
    x = np.ascontiguousarray(x, "<f4")
    head = json.dumps({name: {"dtype": "F32", "shape": list(x.shape), "data_offsets": [0, x.nbytes]}}).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + x.tobytes())


class Encoder:
    def __init__(self, model):
        with open(f"{model}/vae/config.json") as f:
            self.config = json.load(f)
        self.w = {k[len("encoder."):]: v for k, v in read_tensors(f"{model}/vae/diffusion_pytorch_model.safetensors").items() if k.startswith("encoder.")}
        if self.config.get("use_quant_conv"):
            raise SystemExit(f"{model}: use_quant_conv is not supported")

    def conv(self, x, name, stride=1):
        """[H, W, C]; 3 x 3 padded by zeros on all sides, or, with stride 2, below and on the right; 1 x 1."""
        w, b = self.w[name + ".weight"], self.w[name + ".bias"]
        if w.shape[2] == 1:
            return x @ w[:, :, 0, 0].T + b
        p = np.pad(x, ((1, 1), (1, 1), (0, 0)) if stride == 1 else ((0, 1), (0, 1), (0, 0)))
        h, v = (p.shape[0] - 3) // stride + 1, (p.shape[1] - 3) // stride + 1
        out = np.broadcast_to(b, (h * v, w.shape[0])).astype(F)
        for i in range(3):
            for j in range(3):
                part = p[i:i + stride * (h - 1) + 1:stride, j:j + stride * (v - 1) + 1:stride]
                out += part.reshape(h * v, -1) @ w[:, :, i, j].T
        return out.reshape(h, v, -1)

    def norm(self, x, name):
        g = self.config["norm_num_groups"]
        y = x.reshape(-1, g, x.shape[-1] // g)
        m = y.mean((0, 2), keepdims=True, dtype=np.float64)
        v = y.var((0, 2), keepdims=True, dtype=np.float64)
        y = ((y - m) / np.sqrt(v + 1e-6)).astype(F).reshape(x.shape)
        return y * self.w[name + ".weight"] + self.w[name + ".bias"]

    @staticmethod
    def silu(x):
        return x / (1 + np.exp(-x))

    def resnet(self, x, name):
        h = self.conv(self.silu(self.norm(x, name + ".norm1")), name + ".conv1")
        h = self.conv(self.silu(self.norm(h, name + ".norm2")), name + ".conv2")
        return h + (self.conv(x, name + ".conv_shortcut") if name + ".conv_shortcut.weight" in self.w else x)

    def attention(self, x, name):
        c = x.shape[-1]
        h = self.norm(x, name + ".group_norm").reshape(-1, c)
        q, k, v = (h @ self.w[f"{name}.to_{n}.weight"].T + self.w[f"{name}.to_{n}.bias"] for n in "qkv")
        out = np.empty_like(h)
        for at in range(0, len(h), 1024):
            z = (q[at:at + 1024] @ k.T) / F(np.sqrt(c))
            z = np.exp(z - z.max(1, keepdims=True))
            out[at:at + 1024] = (z @ v) / z.sum(1, keepdims=True)
        return x + (out @ self.w[name + ".to_out.0.weight"].T + self.w[name + ".to_out.0.bias"]).reshape(x.shape)

    def encode(self, img):
        """[H, W, 3] in [0, 1] -> latents as the transformer sees them, [H / 16 x W / 16, 4 x channels]"""
        x = self.conv(img * F(2) - F(1), "conv_in")
        levels = len(self.config["block_out_channels"])
        for i in range(levels):
            for j in range(self.config["layers_per_block"]):
                x = self.resnet(x, f"down_blocks.{i}.resnets.{j}")
            if i + 1 < levels:
                x = self.conv(x, f"down_blocks.{i}.downsamplers.0.conv", 2)
        x = self.resnet(x, "mid_block.resnets.0")
        if self.config.get("mid_block_add_attention", True):
            x = self.attention(x, "mid_block.attentions.0")
        x = self.resnet(x, "mid_block.resnets.1")
        x = self.conv(self.silu(self.norm(x, "conv_norm_out")), "conv_out")[..., :self.config["latent_channels"]]
        z = (x - F(self.config.get("shift_factor") or 0)) * F(self.config["scaling_factor"])
        h, w, c = z.shape
        return z.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3).reshape(h * w // 4, 4 * c)


if __name__ == "__main__":
    model, out, path = sys.argv[1:]
    write_tensor(out, "latents", Encoder(model).encode(pictures.read(path)))
