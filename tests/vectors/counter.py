"""Seeded counter: the weights of the tiny models and the inputs of the cases.

value(seed, name, i) depends on nothing but its three arguments, in integer arithmetic and one fp32
multiplication, so that tests/support/counter.h has the same bits:

    z = splitmix64 finalizer of (fnv1a64(name) ^ seed) + (i + 1) * 0x9E3779B97F4A7C15
    u = ((z >> 40) - 2^23) * 2^-23                    in [-1, 1), exact in fp32

and a tensor is `offset + u * scale` with fp32 scale and offset from tensor_rule.
"""

import math

import numpy as np
import torch

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def counter_unit(seed, name, n):
    """The first n values in [-1, 1) as a float32 array."""
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(fnv1a64(name) ^ seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) * np.float32(2.0**-23)


def tensor_rule(name, shape):
    """(offset, scale): norm weights around 1, biases small, embeddings of size 1, every matrix of unit gain."""
    if name.endswith(".bias"):
        return np.float32(0.0), np.float32(0.125)
    if "attn.norm_" in name:  # q and k of the transformer: peaked attention
        return np.float32(1.5), np.float32(0.25)
    if len(shape) == 1:  # LayerNorm, RMSNorm and GroupNorm weights
        return np.float32(1.0), np.float32(0.25)
    if name.endswith(("shared.weight", "_embedding.weight", "relative_attention_bias.weight")):
        return np.float32(0.0), np.float32(1.0)
    gain = 0.5 if name.endswith("SelfAttention.q.weight") else 1.0  # T5 does not divide scores by sqrt(d_kv)
    fan_in = math.prod(shape[1:])
    return np.float32(0.0), np.float32(gain * math.sqrt(3.0 / fan_in))


def counter_tensor(seed, name, shape):
    offset, scale = tensor_rule(name, shape)
    return torch.from_numpy(offset + counter_unit(seed, name, math.prod(shape)) * scale).reshape(shape)


def counter_input(seed, name, shape):
    """Inputs: uniform, variance 1, rounded to bf16 so that fp32 and bf16 runs start from the same values."""
    unit = counter_unit(seed, name, math.prod(shape)) * np.float32(math.sqrt(3.0))
    return torch.from_numpy(unit).reshape(shape).to(torch.bfloat16)
