"""The tiny models: numbers of their configs (the same as in tests/support/tiny_model.c) and the library objects
that have them, filled by the counter. A model is stored in one dtype; its values are rounded to it once."""

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from counter import counter_tensor

DEV_SCHEDULER = dict(
    num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True,
    base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096,
)
SCHNELL_SCHEDULER = dict(DEV_SCHEDULER, shift=1.0, use_dynamic_shifting=False)


def transformer(in_channels, layers, singles, head_dim, heads, axes, joint, pooled, guidance):
    return dict(
        patch_size=1, in_channels=in_channels, num_layers=layers, num_single_layers=singles,
        attention_head_dim=head_dim, num_attention_heads=heads, joint_attention_dim=joint,
        pooled_projection_dim=pooled, guidance_embeds=guidance, axes_dims_rope=axes,
    )


def vae(latent_channels, widths, layers, groups, scaling, shift, post_quant):
    n = len(widths)
    return dict(
        in_channels=3, out_channels=3, latent_channels=latent_channels, block_out_channels=widths,
        layers_per_block=layers, norm_num_groups=groups, scaling_factor=scaling, shift_factor=shift,
        use_quant_conv=post_quant, use_post_quant_conv=post_quant, mid_block_add_attention=True, sample_size=64,
        act_fn="silu", force_upcast=True,
        down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n,
    )


def clip(vocab, hidden, intermediate, layers, heads, eos):
    return dict(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        bos_token_id=0, eos_token_id=eos, pad_token_id=1, projection_dim=hidden,
    )


def t5(vocab, d_model, d_kv, heads, d_ff, layers):
    return dict(
        vocab_size=vocab, d_model=d_model, d_kv=d_kv, num_heads=heads, d_ff=d_ff, num_layers=layers,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=32, relative_attention_max_distance=128,
        layer_norm_epsilon=1e-6, pad_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )


TINY = {
    "a": dict(  # FLUX.1-dev in small: its head width and axes, guidance, four VAE levels
        seed=1001, dtype=torch.bfloat16, scheduler=DEV_SCHEDULER,
        transformer=transformer(64, 2, 2, 128, 2, [16, 56, 56], 48, 32, True),
        vae=vae(16, [16, 24, 32, 32], 2, 8, 0.3611, 0.1159, False),
        clip=clip(514, 32, 64, 2, 4, 2), t5=t5(320, 48, 16, 3, 96, 2),
    ),
    "b": dict(  # schnell in small: no guidance, no shifting, other widths, two VAE levels
        seed=1002, dtype=torch.bfloat16, scheduler=SCHNELL_SCHEDULER,
        transformer=transformer(16, 1, 2, 64, 3, [8, 28, 28], 40, 24, False),
        vae=vae(4, [16, 24], 1, 4, 0.18215, 0.0625, True),
        clip=clip(520, 24, 80, 3, 3, 513), t5=t5(320, 40, 24, 3, 56, 3),
    ),
    "c": dict(  # odd numbers, stored in F16
        seed=1003, dtype=torch.float16, scheduler=DEV_SCHEDULER,
        transformer=transformer(32, 1, 1, 32, 5, [8, 12, 12], 20, 16, True),
        vae=vae(8, [12, 12, 24], 1, 6, 0.5, 0.03125, False),
        clip=clip(520, 16, 20, 1, 2, 2), t5=t5(320, 20, 8, 5, 28, 1),
    ),
    "d": dict(  # a double block alone, stored in F32
        seed=1004, dtype=torch.float32, scheduler=DEV_SCHEDULER,
        transformer=transformer(16, 1, 0, 32, 2, [8, 12, 12], 24, 16, False),
        vae=vae(4, [8], 1, 2, 1.0, 0.0, False),
        clip=clip(514, 16, 24, 1, 2, 2), t5=t5(320, 24, 8, 2, 32, 1),
    ),
    "e": dict(  # a single block alone, stored in F32
        seed=1005, dtype=torch.float32, scheduler=SCHNELL_SCHEDULER,
        transformer=transformer(16, 0, 1, 32, 1, [4, 12, 16], 24, 16, True),
        vae=vae(4, [8, 8, 16, 16], 1, 8, 0.75, 0.25, True),
        clip=clip(514, 16, 24, 1, 2, 2), t5=t5(320, 24, 8, 2, 32, 1),
    ),
}

# The widths of FLUX.1-dev, one block of each kind: `make_vectors.py --full-width` only.
FULL_WIDTH = dict(
    seed=1006, dtype=torch.bfloat16, scheduler=DEV_SCHEDULER,
    transformer=transformer(64, 1, 1, 128, 24, [16, 56, 56], 4096, 768, True),
)


def stored_tensors(module):
    """{name in the file: parameter}, without what a text-to-image run does not read and tied aliases."""
    unread = ("encoder.embed_tokens.", "encoder.down_blocks.", "encoder.mid_block.", "encoder.conv_", "quant_conv.",
              "text_model.embeddings.position_ids")
    return {name: value for name, value in module.state_dict().items() if not name.startswith(unread)}


def fill(module, seed, stored):
    """Every parameter from the counter, rounded to the stored dtype and widened again."""
    with torch.no_grad():
        for name, value in stored_tensors(module).items():
            value.copy_(counter_tensor(seed, name, tuple(value.shape)).to(stored))
    return module.float().eval().requires_grad_(False)


def weight_sum(module, stored):
    """(number of tensors, sum of their stored words modulo 2^64): what tests/unit_tiny_model.c has as literals."""
    word = {torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float32: np.uint32}[stored]
    bits = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}[stored]
    tensors = stored_tensors(module)
    total = sum(int(value.to(stored).view(bits).numpy().view(word).sum(dtype=np.uint64)) for value in tensors.values())
    return len(tensors), total & ((1 << 64) - 1)


def make_transformer(which):
    model = TINY[which] if which in TINY else FULL_WIDTH
    return fill(FluxTransformer2DModel(**model["transformer"]), model["seed"], model["dtype"])


def make_vae(which):
    model = TINY[which]
    return fill(AutoencoderKL(**model["vae"]), model["seed"], model["dtype"])


def make_clip(which):
    model = TINY[which]
    return fill(CLIPTextModel(CLIPTextConfig(**model["clip"])), model["seed"], model["dtype"])


def make_t5(which):
    model = TINY[which]
    return fill(T5EncoderModel(T5Config(**model["t5"])), model["seed"], model["dtype"])


def make_scheduler(which):
    return FlowMatchEulerDiscreteScheduler(**TINY[which]["scheduler"])
