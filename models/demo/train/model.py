"""The parts of the demo model, from the classes of diffusers and transformers, and what goes between pictures and token rows."""
import os

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

STATE = os.environ.get("DEMO_STATE", "demo-state")
T5_LENGTH = 32
TEXT_WIDTH = 128
LATENT = 16


def tokenizers():
    return CLIPTokenizer.from_pretrained(f"{STATE}/tokenizer"), T5Tokenizer.from_pretrained(f"{STATE}/tokenizer_2")


class Model(torch.nn.Module):
    """Transformer and both text encoders, trained together."""

    def __init__(self, singles=3):
        super().__init__()
        self.clip_tokenizer, self.t5_tokenizer = tokenizers()
        self.transformer = FluxTransformer2DModel(
            patch_size=1, in_channels=4 * LATENT, num_layers=2, num_single_layers=singles, attention_head_dim=64, num_attention_heads=3,
            joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=TEXT_WIDTH, guidance_embeds=True, axes_dims_rope=(8, 28, 28))
        bos, eos = self.clip_tokenizer.bos_token_id, self.clip_tokenizer.eos_token_id
        self.clip = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(self.clip_tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=TEXT_WIDTH,
            bos_token_id=bos, eos_token_id=eos, pad_token_id=eos))
        self.t5 = T5EncoderModel(T5Config(
            vocab_size=len(self.t5_tokenizer), d_model=TEXT_WIDTH, d_kv=64, d_ff=320, num_layers=2, num_heads=2, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False))
        self.probe = torch.nn.Linear(self.transformer.inner_dim, 2)        # of training alone: export.py leaves it out
        self.tokens = {}
        self.initialise()

    @staticmethod
    def of(weights):
        """A model of the depth of these weights, holding them."""
        m = Model(count_singles(weights))
        m.load_state_dict(weights)
        return m

    def initialise(self):
        """Xavier everywhere; gates and the output start at zero, so that every block starts as the identity."""
        for name, p in self.transformer.named_parameters():
            if p.dim() == 2:
                torch.nn.init.xavier_uniform_(p)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(p)
            if name.startswith("proj_out.") or ".norm1" in name and "linear" in name or ".norm.linear" in name or name.startswith("norm_out"):
                torch.nn.init.zeros_(p)
        torch.nn.init.normal_(self.t5.shared.weight, std=0.5)
        torch.nn.init.normal_(self.clip.text_model.embeddings.token_embedding.weight, std=0.1)

    def text_ids(self, prompts):
        """T5 ids [B, T5_LENGTH] and CLIP ids [B, longest, in eights: few shapes]; a causal encoder sees no padding after the last end token."""
        for p in set(prompts) - self.tokens.keys():
            if len(self.tokens) > 200000:
                self.tokens.clear()
            self.tokens[p] = (self.t5_tokenizer(p, max_length=T5_LENGTH, padding="max_length", truncation=True).input_ids,
                              self.clip_tokenizer(p, max_length=77, truncation=True).input_ids)
        t5 = torch.tensor([self.tokens[p][0] for p in prompts])
        rows = [self.tokens[p][1] for p in prompts]
        longest = min(-(-max(map(len, rows)) // 8) * 8, 77)
        eos = self.clip_tokenizer.eos_token_id
        return t5, torch.tensor([r + [eos] * (longest - len(r)) for r in rows])

    def encode(self, prompts):
        t5, clip = self.text_ids(prompts)
        return self.t5(t5)[0], self.clip(clip).pooler_output

    def forward(self, x, t, guidance, text, ids):
        """Velocity [B, S, 64] for packed latents x at times t in [0, 1]."""
        rows, pooled = text
        return self.transformer(hidden_states=x, timestep=t, guidance=guidance, encoder_hidden_states=rows, pooled_projections=pooled,
                                txt_ids=torch.zeros(rows.shape[1], 3), img_ids=ids, return_dict=False)[0]

    def places(self, x, t, text, ids):
        """Logits [B, S, 2] for each image token after the double blocks: the caption lets the disc be here; it is here."""
        f, (rows, pooled) = self.transformer, text
        temb = f.time_text_embed(1000 * t, torch.full_like(t, 1000.0), pooled)
        rotary = f.pos_embed(torch.cat([torch.zeros(rows.shape[1], 3), ids]))
        image, rows = f.x_embedder(x), f.context_embedder(rows)
        for block in f.transformer_blocks:
            rows, image = block(hidden_states=image, encoder_hidden_states=rows, temb=temb, image_rotary_emb=rotary)
        return self.probe(torch.nn.functional.layer_norm(image, image.shape[-1:]))


def count_singles(weights):
    return 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("transformer.single_transformer_blocks."))


def pack(z):
    """[B, 16, 2h, 2w] -> [B, h w, 64]"""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(x, h, w):
    """[B, h w, 64] -> [B, 16, 2h, 2w]"""
    b = x.shape[0]
    return x.view(b, h, w, LATENT, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, LATENT, 2 * h, 2 * w)


def image_ids(h, w, stride=1):
    """Positions of h x w tokens.  stride 2 puts the tokens of a half-size picture where those of the whole picture are."""
    ids = torch.zeros(h, w, 3)
    ids[..., 1] = (torch.arange(h) * stride + (stride - 1) / 2)[:, None]
    ids[..., 2] = (torch.arange(w) * stride + (stride - 1) / 2)[None, :]
    return ids.view(h * w, 3)


def sigmas(steps, mu):
    """FLUX's noise levels, 1 ... 0."""
    s = np.linspace(1, 1 / steps, steps)
    return np.append(np.exp(mu) / (np.exp(mu) + (1 / s - 1)), 0.0)


@torch.no_grad()
def sample(model, prompts, h, w, steps=20, mu=0.8, cfg=1.0, guidance=1.0, seed=0, stride=1):
    """Latents [B, 16, 2h, 2w] by Euler steps; cfg != 1 uses the empty prompt as the other end."""
    x = pack(torch.randn(len(prompts), LATENT, 2 * h, 2 * w, generator=torch.Generator().manual_seed(seed)))
    ids, s = image_ids(h, w, stride), sigmas(steps, mu)
    text, empty = model.encode(prompts), model.encode([""] * len(prompts))
    g = torch.full((len(prompts),), float(guidance))
    for i in range(steps):
        t = torch.full((len(prompts),), float(s[i]))
        v = model(x, t, g, text, ids)
        if cfg != 1.0:
            v0 = model(x, t, g, empty, ids)
            v = v0 + cfg * (v - v0)
        x = x + float(s[i + 1] - s[i]) * v
    return unpack(x, h, w)


class BlockCode:
    """Linear latents: principal components of 8 x 8 x 3 blocks, partly whitened.  The autoencoder is trained to decode (and to
    encode to) exactly these, which is a fast way to a good one."""

    def __init__(self):
        d = np.load(f"{STATE}/blocks.npz")
        self.mean, self.basis, self.scale = (torch.from_numpy(d[k]) for k in ("mean", "basis", "scale"))
        self.factor = float(d["factor"])        # the autoencoder's scaling_factor: its own latents are these divided by it

    @staticmethod
    def blocks(x):
        """[B, 3, H, W] in [-1, 1] -> [B, H/8, W/8, 192]"""
        b, c, h, w = x.shape
        return x.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(b, h // 8, w // 8, 192)

    def encode(self, x):
        return (((self.blocks(x) - self.mean) @ self.basis) * self.scale).permute(0, 3, 1, 2).contiguous()

    def decode(self, z):
        b, c, h, w = z.shape
        rows = (z.permute(0, 2, 3, 1) / self.scale) @ self.basis.T + self.mean
        return rows.view(b, h, w, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(b, 3, 8 * h, 8 * w)

    @staticmethod
    def fit(pictures):
        """Writes blocks.npz from pictures [B, 3, H, W] in [-1, 1]."""
        rows = BlockCode.blocks(pictures).reshape(-1, 192).double()
        mean = rows.mean(0)
        w, u = torch.linalg.eigh(torch.cov((rows - mean).T))
        w, u = w.flip(0)[:LATENT], u.flip(1)[:, :LATENT]
        scale = w ** -0.3                                       # sigma^-0.6
        factor = 1 / torch.sqrt((w * scale ** 2).mean())        # mean square 1 over all channels
        scale = scale * factor
        np.savez(f"{STATE}/blocks.npz", factor=float(factor), mean=mean.float().numpy(), basis=u.float().numpy(), scale=scale.float().numpy())
        print("block code keeps", float(w.sum() / rows.var(0).sum()), "channel std", [round(float(v), 2) for v in w.sqrt() * scale])


def to_float(pictures):
    """bytes [B, H, W, 3] -> float [B, 3, H, W] in [-1, 1]"""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
