"""Reference vectors for the parity tests, computed by the classes of diffusers and transformers.

    python tests/vectors/make_vectors.py [CASE...]       writes CASE.safetensors beside this file (default: all)
    python tests/vectors/make_vectors.py --literals      prints the literals of tests/unit_tiny_model.c
    python tests/vectors/make_vectors.py --full-width DIR   writes full_width.safetensors into DIR

Made with Python 3.11, torch 2.15.0 (CPU, AVX2), diffusers 0.39.0, transformers 4.57.6, safetensors 0.8.0.
README.md lists the files and the tensors in them. Weights and inputs come from counter.py.
"""

import argparse
import copy
import pathlib

import numpy as np
import sentencepiece
import torch
from diffusers import FluxPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from safetensors.torch import save_file

from counter import counter_input, counter_tensor, counter_unit
from tiny_models import (FULL_WIDTH, TINY, make_clip, make_scheduler, make_t5, make_transformer, make_vae,
                         weight_sum)

HERE = pathlib.Path(__file__).parent
INPUT_SEED = 77

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def trace_transformer(model, run, blocks):
    """Runs and returns {name: tensor} of the output, with the module boundaries when blocks is true."""
    out, hooks = {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            if isinstance(output, tuple):  # both kinds of block return (text, image)
                out[f"{name}.text"], out[f"{name}.image"] = output[0][0].clone(), output[1][0].clone()
            else:
                out[name] = output[0].clone()
        return hook

    if blocks:
        named = [("temb", model.time_text_embed), ("x_embedder", model.x_embedder),
                 ("context_embedder", model.context_embedder), ("norm_out", model.norm_out)]
        named += [(f"double.{i}", block) for i, block in enumerate(model.transformer_blocks)]
        named += [(f"single.{i}", block) for i, block in enumerate(model.single_transformer_blocks)]
        hooks = [module.register_forward_hook(keep(name)) for name, module in named]
    out["v"] = run(model)[0][0].clone()
    for hook in hooks:
        hook.remove()
    return out


def forward_inputs(which, rows, cols, n_text):
    """A forward's inputs, with a batch of one. 1000 t and 1000 g are exact in bf16, so that both runs see the same."""
    config = (TINY[which] if which in TINY else FULL_WIDTH)["transformer"]
    tag = f"{which}.{rows}x{cols}+{n_text}"
    inputs = {
        "latents": counter_input(INPUT_SEED, f"{tag}.latents", (rows * cols, config["in_channels"])),
        "prompt_embeds": counter_input(INPUT_SEED, f"{tag}.prompt_embeds", (n_text, config["joint_attention_dim"])),
        "pooled": counter_input(INPUT_SEED, f"{tag}.pooled", (config["pooled_projection_dim"],)),
        "timestep": torch.tensor([0.5]),
    }
    if config["guidance_embeds"]:
        inputs["guidance"] = torch.tensor([4.0])
    return inputs


def image_ids(rows, cols, dtype=torch.float32):
    return FluxPipeline._prepare_latent_image_ids(1, rows, cols, "cpu", dtype)


def forward_call(inputs, ids, dtype):
    """The transformer's call on inputs in a dtype, as the pipeline makes it."""
    n_text = inputs["prompt_embeds"].shape[0]
    return lambda model: model(
        hidden_states=inputs["latents"][None].to(dtype),
        encoder_hidden_states=inputs["prompt_embeds"][None].to(dtype),
        pooled_projections=inputs["pooled"][None].to(dtype),
        timestep=inputs["timestep"].to(dtype),
        guidance=inputs.get("guidance"),
        img_ids=ids.to(dtype), txt_ids=torch.zeros(n_text, 3, dtype=dtype), return_dict=False,
    )


def transformer_case(which, shapes):
    """shapes: (rows, cols, text rows, "blocks" to keep module boundaries, bf16 too)."""
    model = make_transformer(which)
    half = copy.deepcopy(model).to(torch.bfloat16)
    out = {}
    for rows, cols, n_text, blocks, bf16 in shapes:
        tag = f"{rows}x{cols}+{n_text}"
        inputs = forward_inputs(which, rows, cols, n_text)
        ids = image_ids(rows, cols)
        found = {f"{tag}.{name}": value for name, value in inputs.items()}
        run = forward_call(inputs, ids, torch.float32)
        found |= {f"{tag}.fp32.{name}": value for name, value in trace_transformer(model, run, blocks).items()}
        if bf16:
            run = forward_call(inputs, ids, torch.bfloat16)
            found |= {f"{tag}.bf16.{name}": value for name, value in trace_transformer(half, run, blocks).items()}
        out |= found
    return out


class Tables(torch.nn.Module):
    """Stands in for the position module: per-axis cos and sin [positions, width / 2], gathered by the ids."""

    def __init__(self, cos, sin):
        super().__init__()
        self.cos, self.sin = cos, sin

    def forward(self, ids):
        def gather(tables):
            rows = [table[ids[:, axis].long()] for axis, table in enumerate(tables)]
            return torch.cat(rows, dim=-1).repeat_interleave(2, dim=-1)
        return gather(self.cos), gather(self.sin)


def tables_case():
    """Model a with position tables like those of DyPE: stretched angles, and an amplitude that differs per axis."""
    model = make_transformer("a")
    rows, cols, n_text = 3, 5, 7
    cos, sin = [], []
    for length, width, stretch, amplitude in [(1, 16, 1.0, 1.0), (rows, 56, 0.37, 1.125), (cols, 56, 0.61, 0.875)]:
        frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width * stretch)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        cos.append((angle.cos() * amplitude).float())
        sin.append((angle.sin() * amplitude).float())
    inputs = forward_inputs("a", rows, cols, n_text)
    out = {f"3x5+7.{name}": value for name, value in inputs.items()}
    out |= {f"3x5+7.cos.{axis}": cos[axis] for axis in range(3)} | {f"3x5+7.sin.{axis}": sin[axis] for axis in range(3)}
    run = forward_call(inputs, image_ids(rows, cols), torch.float32)
    model.pos_embed = Tables(cos, sin)
    out |= {f"3x5+7.fp32.{name}": value for name, value in trace_transformer(model, run, False).items()}
    return out


def exact_thousandth(value):
    """x with fp32(x) * 1000 == value in fp32: what an fp32 model is fed to see the bf16 model's timestep."""
    x = torch.tensor([value / 1000], dtype=torch.float32)
    for candidate in (x, torch.nextafter(x, x + 1), torch.nextafter(x, x - 1)):
        if float(candidate * 1000) == value:
            return candidate
    raise ValueError(value)


def run_pipeline(pipe, latents, embeds, pooled, rows, cols, steps, guidance):
    """A run of FluxPipeline from given noise and embeddings: what goes in and out of each step, and the picture."""
    seen = {"latents_in": [], "v": [], "timestep": [], "latents_out": []}

    def before(_module, _args, kwargs):
        seen["latents_in"].append(kwargs["hidden_states"][0].clone())
        seen["timestep"].append(kwargs["timestep"].clone())

    hooks = [
        pipe.transformer.register_forward_pre_hook(before, with_kwargs=True),
        pipe.transformer.register_forward_hook(lambda _m, _i, output: seen["v"].append(output[0][0].clone())),
        pipe.vae.decoder.register_forward_hook(lambda _m, _i, output: seen.update(image=output[0].clone())),
    ]

    def after(_pipe, _step, _t, kwargs):
        seen["latents_out"].append(kwargs["latents"][0].clone())
        return {}

    pipe.set_progress_bar_config(disable=True)
    side = 2 * pipe.vae_scale_factor
    pixels = pipe(
        height=rows * side, width=cols * side, num_inference_steps=steps, guidance_scale=guidance,
        latents=latents[None], prompt_embeds=embeds[None], pooled_prompt_embeds=pooled[None],
        callback_on_step_end=after, output_type="pil",
    ).images[0]
    for hook in hooks:
        hook.remove()
    out = {name: torch.stack(value) for name, value in seen.items() if name != "image"}
    out["timestep"] = out["timestep"][:, 0]
    return out | {"image": seen["image"], "pixels": torch.from_numpy(np.array(pixels)),
                  "sigmas": pipe.scheduler.sigmas.clone(), "timesteps": pipe.scheduler.timesteps.clone()}


def denoise_case(which, rows, cols, n_text, steps, guidance):
    """A whole run in fp32 and one in bf16, and fp32 forwards of the bf16 run's inputs."""
    config = TINY[which]["transformer"]
    latents = counter_input(INPUT_SEED, f"{which}.noise", (rows * cols, config["in_channels"]))
    embeds = counter_input(INPUT_SEED, f"{which}.prompt_embeds", (n_text, config["joint_attention_dim"]))
    pooled = counter_input(INPUT_SEED, f"{which}.pooled", (config["pooled_projection_dim"],))
    out = {"latents": latents, "prompt_embeds": embeds, "pooled": pooled, "guidance": torch.tensor([guidance]),
           "grid": torch.tensor([rows, cols], dtype=torch.int32)}
    model = make_transformer(which)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        pipe = FluxPipeline(
            scheduler=make_scheduler(which), vae=make_vae(which).to(dtype), text_encoder=None, tokenizer=None,
            text_encoder_2=None, tokenizer_2=None, transformer=copy.deepcopy(model).to(dtype))
        found = run_pipeline(pipe, latents.to(dtype), embeds.to(dtype), pooled.to(dtype), rows, cols, steps, guidance)
        if name == "fp32":
            del found["latents_in"], found["v"]
        out |= {f"{name}.{key}": value for key, value in found.items()}
    embedded = (out["bf16.timestep"] * 1000).float()
    out["bf16.embedded_timestep"] = embedded
    if config["guidance_embeds"]:
        out["bf16.embedded_guidance"] = (torch.tensor([guidance]).to(torch.bfloat16) * 1000).float()
    truth = []
    for i in range(steps):
        inputs = {"latents": out["bf16.latents_in"][i], "prompt_embeds": embeds, "pooled": pooled,
                  "timestep": exact_thousandth(float(embedded[i]))}
        if config["guidance_embeds"]:
            inputs["guidance"] = exact_thousandth(float(out["bf16.embedded_guidance"]))
        truth.append(forward_call(inputs, image_ids(rows, cols), torch.float32)(model)[0][0])
    out["fp32_of_bf16.v"] = torch.stack(truth)
    return out


def schedule_case():
    """Sigmas and timesteps as the pipeline makes them: NAME.STEPS.IMAGE_TOKENS; dype has mu = max_shift."""
    out = {}
    for name, which, steps, n_image in [
            ("dev", "a", 28, 4096), ("dev", "a", 8, 13), ("dev", "a", 50, 256), ("dev", "a", 20, 65536),
            ("dev", "a", 1, 1024), ("dype", "a", 28, 4096), ("dype", "a", 28, 65536), ("dype", "a", 5, 77),
            ("schnell", "b", 4, 4096), ("schnell", "b", 1, 256), ("schnell", "b", 7, 65536)]:
        scheduler = make_scheduler(which)
        config = scheduler.config
        mu = config.max_shift if name == "dype" else calculate_shift(
            n_image, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
        timesteps, _ = retrieve_timesteps(scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        tag = f"{name}.{steps}.{n_image}"
        out |= {f"{tag}.sigmas": scheduler.sigmas.clone(), f"{tag}.timesteps": timesteps.clone(),
                f"{tag}.mu": torch.tensor([mu], dtype=torch.float64)}
    return out


def vae_case(which, shapes):
    """Decodes of (latent rows, latent columns, True for bf16 too, True to keep module boundaries), from the packed
    latent on as the pipeline does it."""
    model = make_vae(which)
    half = copy.deepcopy(model).to(torch.bfloat16)
    scale = 2 ** (len(model.config.block_out_channels) - 1)
    processor = VaeImageProcessor(vae_scale_factor=2 * scale)
    out = {}
    for rows, cols, bf16, blocks in shapes:
        tag = f"{rows}x{cols}"
        unpacked = counter_input(INPUT_SEED, f"{which}.{tag}.vae", (model.config.latent_channels, rows, cols))
        packed = FluxPipeline._pack_latents(unpacked[None], 1, model.config.latent_channels, rows, cols)
        found = {"packed": packed[0]}
        for name, module in (("fp32", model), ("bf16", half)):
            if name == "bf16" and not bf16:
                continue
            again = FluxPipeline._unpack_latents(packed.to(module.dtype), rows * scale, cols * scale, scale)
            z = again / model.config.scaling_factor + model.config.shift_factor
            hooks = []
            if blocks:
                def keep(label):
                    def hook(_module, _inputs, output):
                        found[label] = output[0].clone()
                    return hook
                parts = [("conv_in", module.decoder.conv_in), ("mid_block", module.decoder.mid_block)]
                parts += [(f"up_blocks.{i}", block) for i, block in enumerate(module.decoder.up_blocks)]
                hooks = [part.register_forward_hook(keep(f"{name}.{label}")) for label, part in parts]
            image = module.decode(z, return_dict=False)[0]
            for hook in hooks:
                hook.remove()
            found[f"{name}.unscaled"] = z[0]
            found[f"{name}.image"] = image[0].clone()
            found[f"{name}.pixels"] = torch.from_numpy(np.array(processor.postprocess(image, output_type="pil")[0]))
        out |= {f"{which}.{tag}.{key}": value for key, value in found.items()}
    return out


def clip_ids(which, n_tokens):
    """77 ids: start, tokens, end, and the end again as padding. Token 515 and up lie above the end's 513."""
    vocab = TINY[which]["clip"]["vocab_size"]
    tokens = (counter_unit(INPUT_SEED, f"{which}.clip.{n_tokens}", n_tokens) * 256 + 256).astype(np.int32) % vocab
    if vocab > 514 and n_tokens > 4:  # two rules, two places: the largest id comes before the first end
        tokens[3] = 517
    ids = np.full(77, 513, np.int32)
    ids[0] = 512
    ids[1:1 + n_tokens] = tokens
    return torch.from_numpy(ids)


def clip_case(which, bf16):
    model = make_clip(which)
    ids = torch.stack([clip_ids(which, n) for n in (0, 6, 40, 75)])
    out = {"ids": ids}
    result = model(ids.long())
    out |= {"fp32.pooled": result.pooler_output, "fp32.states": result.last_hidden_state[2]}
    if bf16:
        out["bf16.pooled"] = model.to(torch.bfloat16)(ids.long()).pooler_output
    return {f"{which}.clip.{name}": value for name, value in out.items()}


def t5_case(which, shapes):
    """shapes: (padded length, tokens before the end, bf16 too)."""
    model = make_t5(which)
    half = copy.deepcopy(model).to(torch.bfloat16)
    out = {}
    for length, n_tokens, bf16 in shapes:
        tokens = counter_unit(INPUT_SEED, f"{which}.t5.{length}", n_tokens)
        ids = np.zeros(length, np.int32)
        ids[:n_tokens] = ((tokens + 1) * 158).astype(np.int32) + 3
        ids[n_tokens] = 1
        ids = torch.from_numpy(ids)
        found = {"ids": ids, "fp32.states": model(ids[None].long())[0][0]}
        if bf16:
            found["bf16.states"] = half(ids[None].long())[0][0]
        out |= {f"{which}.t5.{length}.{name}": value for name, value in found.items()}
    return out


def full_width(folder):
    """One double and one single block in the widths of FLUX.1-dev (tiny_model_get('f')): 6 GB of memory, 18 MB."""
    tensors = transformer_case("f", [(12, 16, 64, True, True)])
    summary(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()},
              pathlib.Path(folder) / "full_width.safetensors")


def relative(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


CASES = {
    "transformer_a": lambda: transformer_case("a", [(1, 13, 7, True, True), (17, 31, 77, False, True)]),
    "transformer_b": lambda: transformer_case("b", [(3, 7, 33, True, False), (23, 29, 131, False, True)]),
    "transformer_c": lambda: transformer_case("c", [(5, 3, 3, True, False), (1, 211, 64, False, False)]),
    "transformer_d": lambda: transformer_case("d", [(4, 6, 5, True, False)]),
    "transformer_e": lambda: transformer_case("e", [(6, 4, 5, True, False)]),
    "tables_a": tables_case,
    "denoise_a": lambda: denoise_case("a", 4, 5, 33, 8, 3.5),
    "denoise_b": lambda: denoise_case("b", 7, 11, 19, 4, 0.0),
    "schedule": schedule_case,
    "vae": lambda: (
        vae_case("a", [(6, 10, True, False), (26, 4, False, False)])
        | vae_case("b", [(14, 10, True, True), (34, 26, False, False)])
        | vae_case("c", [(10, 6, False, False)])
        | vae_case("d", [(8, 6, False, True)])
        | vae_case("e", [(4, 12, False, False)])),
    "text": lambda: (
        clip_case("a", True) | clip_case("b", True) | clip_case("c", False)
        | t5_case("a", [(77, 20, True), (512, 90, True)]) | t5_case("b", [(256, 255, True)])
        | t5_case("c", [(19, 0, False)])),
}


def print_literals():
    """Counter values as fp32 bits, and the sums of the tiny models' weights."""
    named = [("x_embedder.weight", (256, 64)), ("x_embedder.bias", (256,)), ("a.attn.norm_q.weight", (128,)),
             ("encoder.final_layer_norm.weight", (48,)), ("shared.weight", (320, 48)),
             ("encoder.block.0.layer.0.SelfAttention.q.weight", (48, 48)), ("decoder.conv_in.weight", (32, 16, 3, 3))]
    for name, shape in named:
        bits = counter_tensor(1001, name, shape).flatten().view(torch.int32).numpy().view(np.uint32)
        print(f'{{"{name}", {{{", ".join(map(str, shape))}}}, {{' + ", ".join(f"0x{b:08x}" for b in bits[[0, 1, -1]]) + "}}")
    for which, model in TINY.items():
        for part in (make_transformer, make_vae, make_clip, make_t5):
            n, total = weight_sum(part(which), model["dtype"])
            print(f"{which} {part.__name__[5:]}: {{{n}, 0x{total:x}}}")


def tiny_spiece():
    """tiny_spiece.model: a SentencePiece unigram model in the layout of T5 (ids 0 pad, 1 eos, 2 unk), 76 pieces."""
    places = ["mountains", "hills", "a lake", "the sea", "dunes", "a forest", "snowy peaks", "a valley", "cliffs"]
    lights = ["at dawn", "at sunset", "at night", "under a pale sun", "in fog", "in the rain", "under a red sky"]
    words = [f"A painting of {place} {light}, {n} birds." for n, place in enumerate(places) for light in lights]
    words += ["The quick brown fox jumps over the lazy dog; 0123456789!", "Wide panorama, highly detailed, film grain?"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=str(HERE / "tiny_spiece"), vocab_size=76, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="identity", num_threads=1,
        hard_vocab_limit=True, minloglevel=1)
    (HERE / "tiny_spiece.vocab").unlink()


def summary(tensors):
    """Prints sizes, and the bf16 reference's distance from fp32 where both are there."""
    for name, value in sorted(tensors.items()):
        line = f"  {name:40} {str(value.dtype)[6:]:9} {list(value.shape)} rms {value.float().pow(2).mean().sqrt():.3g}"
        twin = "fp32_of_bf16.v" if name == "bf16.v" else name.replace("bf16.", "fp32.")
        if name.split(".")[-2:-1] != ["fp32"] and twin != name and twin in tensors:
            line += f"  bf16 error {relative(value, tensors[twin]):.2e}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--full-width", metavar="DIR")
    parser.add_argument("--literals", action="store_true")
    args = parser.parse_args()
    if args.full_width:
        full_width(args.full_width)
        return
    if args.literals:
        print_literals()
        return
    if not args.cases:
        tiny_spiece()
    for case in args.cases or CASES:
        tensors = {name: value.contiguous() for name, value in CASES[case]().items()}
        print(f"{case}: {sum(v.numel() * v.element_size() for v in tensors.values())} bytes")
        summary(tensors)
        save_file(tensors, HERE / f"{case}.safetensors")


if __name__ == "__main__":
    main()
