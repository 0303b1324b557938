"""Attention by plain products, in the place of diffusers' own while training.

PyTorch's form spends its time on preparing one small product per head where there are so few tokens (8.2 ms against 3.0 for 48 heads of 96,
there and back). Closed to the compiler: with products and softmax in its hands, torch 2.15 gives NaN gradients on a processor with AMX.
"""
import torch
from diffusers.models import attention_dispatch


@torch.library.custom_op("demo::attend", mutates_args=())
def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[B heads, S, 64]; q is scaled already. Also gives the chances."""
    p = torch.softmax(q @ k.mT, -1, dtype=torch.float32).to(v.dtype)
    return p @ v, p


@attend.register_fake
def _(q, k, v):
    return torch.empty_like(v), q.new_empty(q.shape[0], q.shape[1], k.shape[1])


@torch.library.custom_op("demo::attend_back", mutates_args=())
def attend_back(g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = p.float()
    ds = torch._softmax_backward_data((g @ v.mT).float(), wide, -1, torch.float32).to(q.dtype)
    return ds @ k, ds.mT @ q, p.mT @ g


@attend_back.register_fake
def _(g, q, k, v, p):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


attend.register_autograd(lambda ctx, g, _: attend_back(g.contiguous(), *ctx.saved_tensors),
                         setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output[1]))


def attention(query, key, value, **_):
    """[B, S, heads, 64] -> the same, as diffusers calls it."""
    b, s, heads, width = query.shape
    q, k, v = (x.transpose(1, 2).reshape(b * heads, s, width).to(value.dtype) for x in (query * width ** -0.5, key, value))
    return attend(q, k, v)[0].view(b, heads, s, width).transpose(1, 2)


def install():
    attention_dispatch._AttentionBackendRegistry._backends[attention_dispatch.AttentionBackendName.NATIVE] = attention
