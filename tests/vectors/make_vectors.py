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
from safetensors.torch import save_file

from counter import counter_input, counter_tensor
from tiny_models import TINY, make_clip, make_scheduler, make_t5, make_transformer, make_vae, weight_sum

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
    config = TINY[which]["transformer"]
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


def relative(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


CASES = {
    "transformer_a": lambda: transformer_case("a", [(1, 13, 7, True, True), (17, 31, 77, False, True)]),
    "transformer_b": lambda: transformer_case("b", [(3, 7, 33, True, False), (23, 29, 131, False, True)]),
    "transformer_c": lambda: transformer_case("c", [(5, 3, 3, True, False), (1, 211, 64, False, False)]),
    "transformer_d": lambda: transformer_case("d", [(4, 6, 5, True, False)]),
    "transformer_e": lambda: transformer_case("e", [(6, 4, 5, True, False)]),
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
        if ".bf16." in name and name.replace(".bf16.", ".fp32.") in tensors:
            line += f"  bf16 error {relative(value, tensors[name.replace('.bf16.', '.fp32.')]):.2e}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--full-width", metavar="DIR")
    parser.add_argument("--literals", action="store_true")
    args = parser.parse_args()
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
