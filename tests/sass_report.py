#!/usr/bin/env python3
"""sass_report.py NVCC NVDISASM [FOLDER]: what the attention kernels' inner loops are made of, and the share of the tensor
cores' peak that follows. A report, not a test: nothing here has run on a GPU.

Compiles kernels/cuda/attention_bf16*.cu for 8.0, 8.6 and 9.0, disassembles them and finds, in each unmasked kernel, the loop
over tiles of keys: the backward branch around the most HMMA. Prints instructions of one warp and tile by class, bank
conflicts of each pattern of shared addresses, and bounds for an A100 and an H100 as tables for docs/cost-model.md.
NVDISASM comes with the toolkit or with a wheel: pip install nvidia-cuda-nvdisasm, in
lib/python*/site-packages/nvidia/cu13/bin/nvdisasm."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ARCHITECTURES = (80, 86, 90)
KEYS, WARPS = 64, 8  # KEY_TILE; warps of a block
FLAGS = ["-std=c++17", "-fmad=false", "-O3"] + [f"-I{ROOT}/{d}" for d in ("kernels/cuda", "kernels", "src")]

# file, kernel, head width, query rows of a block
KERNELS = [
    ("attention_bf16", "attention_bf16_kernelILi64ELb0ELi1E", 64, 128),
    ("attention_bf16", "attention_bf16_kernelILi64ELb0ELi2E", 64, 256),
    ("attention_bf16", "attention_bf16_kernelILi128ELb0ELi1E", 128, 128),
    ("attention_bf16", "attention_bf16_kernelILi128ELb0ELi2E", 128, 256),
    ("attention_bf16_wide", "attention_bf16_wide_kernel", 512, 64),
]

# Per clock and multiprocessor. fma: dense bf16 multiply-adds from the data sheets, peak / (2 x multiprocessors x clock): A100
# SXM 312 TFLOP/s, 108, 1.41 GHz; H100 SXM 989.4, 132, 1.83 GHz. mma: what mma.sync reaches of it; the rest of H100's is
# wgmma's alone (arXiv:2402.13499 measures 62.9 %). fp32, mufu, shuffle: lanes, CUDA programming guide, arithmetic
# throughput (multiply-adds of integers: 64). integer: what does compares, selects, logic, minima and conversions.
GPUS = {
    "A100": dict(arch=80, fma=1024, mma=1.0, fp32=64, integer=64, mufu=16, shuffle=32, shared=128, issue=4, peak=312e12),
    "H100": dict(arch=90, fma=2048, mma=0.63, fp32=128, integer=64, mufu=16, shuffle=32, shared=128, issue=4, peak=989.4e12),
}

CLASSES = [  # first match wins
    ("HMMA", r"HMMA"), ("LDSM", r"LDSM"), ("LDGSTS", r"LDGSTS"), ("LDS, STS", r"LDS\b|STS"), ("MUFU", r"MUFU"),
    ("FMUL, FFMA, FADD", r"FMUL|FFMA|FADD"), ("IMAD", r"IMAD|UIMAD"), ("SHFL, VOTE", r"SHFL|VOTE"),
    ("BAR, DEPBAR", r"BAR|DEPBAR|LDGDEPBAR"), ("control", r"BRA|CALL|EXIT|NOP|BSSY|BSYNC|WARPSYNC"),
    ("LDG, STG, LDC", r"LDG|STG|LDC"), ("other", r"."),  # compares, selects, logic, shifts, conversions
]


def hmma_of(rows, d):
    """HMMA of a warp and tile: q k and p v, 16 x 8 x 16 multiply-adds each."""
    return 2 * rows * KEYS * d // (16 * 8 * 16) // WARPS


def compile_and_disassemble(nvcc, nvdisasm, name, arch, folder):
    cubin = f"{folder}/{name}.{arch}.cubin"
    subprocess.run([nvcc, *FLAGS, "-cubin", f"-arch=sm_{arch}", f"{ROOT}/kernels/cuda/{name}.cu", "-o", cubin], check=True)
    return subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True).stdout


def functions(sass):
    """{kernel: (instructions without predicate, predicates, {label: index})}"""
    found, current = {}, None
    for line in sass.split("\n"):
        if m := re.match(r"\.text\.(\S+):", line):
            current = found[m.group(1)] = ([], [], {})
        elif current and (m := re.match(r"(\.L_x_\d+):", line)):
            current[2][m.group(1)] = len(current[0])
        elif current and (m := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?(.*?) ;", line)):
            current[0].append(m.group(2))
            current[1].append(m.group(1))
    return found


def target(instruction, labels):
    m = re.search(r"\.L_x_\d+", instruction) if instruction.startswith("BRA") else None
    return labels.get(m.group(0)) if m else None


def inner_loop(function, n_hmma):
    """[(instruction, times per tile)] of the loop over tiles, and how many that run seldom."""
    code, predicates, labels = function
    jumps = [(target(t, labels), i) for i, t in enumerate(code) if target(t, labels) is not None]
    count = lambda a, b: sum(t.startswith("HMMA") for t in code[a:b + 1])
    begin, end = max(((a, b) for a, b in jumps if a <= b), key=lambda j: (count(*j), j[0] - j[1]))
    times = [1] * (end + 1)
    for a, b in jumps:  # a loop inside: as many rounds as make the tile's HMMA
        if begin < a <= b < end and count(a, b):
            rounds, rest = divmod(n_hmma - (count(begin, end) - count(a, b)), count(a, b))
            assert rest == 0, "the loop inside does not divide the tile"
            times[a:b + 1] = [rounds] * (b + 1 - a)
    assert sum(times[i] for i in range(begin, end + 1) if code[i].startswith("HMMA")) == n_hmma
    # What a branch jumps over without a product or a copy in it: the query's first load, a ragged tile's mask, a new maximum.
    for a, b in jumps:
        if begin <= b < a <= end and predicates[b] and not any(re.match("HMMA|LDGSTS|BAR", t) for t in code[b + 1:a]):
            times[b + 1:a] = [0] * (a - b - 1)
    seldom = sum(times[i] == 0 for i in range(begin, end + 1))
    return [(code[i], times[i]) for i in range(begin, end + 1)], seldom


def by_class(loop):
    counts = dict.fromkeys((name for name, _ in CLASSES), 0)
    for text, times in loop:
        counts[next(name for name, pattern in CLASSES if re.match(pattern, text))] += times
    return counts


# ---- shared memory: the layout's arithmetic, as the kernels have it


def piece_at(row, pieces, piece):
    return (row * pieces + (piece ^ (row & 7))) * 16


def degree(addresses, width):
    """Passes that the banks need over the least possible: 128 bytes at a time, in order of the lanes."""
    group, worst = 128 // width, 0
    for first in range(0, len(addresses), group):
        words = {(a + b) // 4 for a in addresses[first:first + group] for b in range(0, width, 4)}
        worst = max(worst, max(sum(w % 32 == bank for w in words) for bank in range(32)))
    return worst


def worst_degree(pattern, width, variants):
    return max(degree([pattern(lane, *v) for lane in range(32)], width) for v in variants)


def conflicts():
    """(kernel, access, worst degree over all its places)"""
    for d in (64, 128):
        p = d // 8
        steps = [(c, j) for c in range(d // 16) for j in range(KEYS // 16)]
        yield f"{d}", "cp.async of q, K, V", worst_degree(
            lambda l, w, j: piece_at((w * 32 + l + j * 256) // p, p, (w * 32 + l) % p), 16,
            [(w, j) for w in range(WARPS) for j in range(KEYS * p // 256)])
        yield f"{d}", "ldmatrix of q", worst_degree(
            lambda l, w, c: piece_at(w * 16 + l % 16, p, c * 2 + l // 16), 16,
            [(w, c) for w in range(2 * WARPS) for c in range(d // 16)])
        yield f"{d}", "ldmatrix of K", worst_degree(
            lambda l, c, j: piece_at(j * 16 + l % 8 + l // 16 * 8, p, c * 2 + l // 8 % 2), 16, steps)
        yield f"{d}", "ldmatrix.trans of V", worst_degree(
            lambda l, c, j: piece_at(j * 16 + l % 16, p, c * 2 + l // 16), 16, steps)
    groups = [(g, c) for g in range(0, 64, 16) for c in range(32)]
    yield "512", "st.shared of q", worst_degree(lambda l, w, j: piece_at((w * 32 + l + j * 256) // 64, 64, (w * 32 + l) % 64), 16,
                                                [(w, j) for w in range(WARPS) for j in range(16)])
    yield "512", "cp.async of K, V", worst_degree(lambda l, w, j: piece_at((w * 32 + l + j * 256) // 8, 8, (w * 32 + l) % 8), 16,
                                                  [(w, j) for w in range(WARPS) for j in range(2)])
    yield "512", "ldmatrix of q", worst_degree(lambda l, g, c: piece_at(g + l % 16, 64, c * 2 + l // 16), 16, groups)
    yield "512", "ldmatrix of K", worst_degree(
        lambda l, h, i, j: piece_at(h * 32 + j * 16 + l % 8 + l // 16 * 8, 8, i * 2 + l // 8 % 2), 16,
        [(h, i, j) for h in range(2) for i in range(4) for j in range(2)])
    yield "512", "ldmatrix.trans of V", worst_degree(
        lambda l, h, i, j: piece_at(j * 16 + l % 16, 8, h * 4 + i * 2 + l // 16), 16,
        [(h, i, j) for h in range(2) for i in range(2) for j in range(4)])
    rows = [(g, h, i, j) for g in range(0, 64, 16) for h in range(2) for i in range(2) for j in range(4)]
    yield "512", "st.shared of p", worst_degree(
        lambda l, g, h, i, j: piece_at(g + l // 4 + i * 8, 8, h * 4 + j) + l % 4 * 4, 4, rows)
    yield "512", "ldmatrix of p", worst_degree(lambda l, g, j: piece_at(g + l % 16, 8, j * 2 + l // 16), 16,
                                               [(g, j) for g in range(0, 64, 16) for j in range(4)])


# ---- bounds


def clocks(gpu, counts, d, n_hmma):
    """Clocks of a multiprocessor for one tile of one block, by what is needed."""
    lanes = 32 * WARPS
    copied = 2 * KEYS * d * 2
    return {
        "tensor": WARPS * n_hmma * 2048 / gpu["fma"] / gpu["mma"],
        "shared": (WARPS * 512 * counts["LDSM"] + copied + WARPS * 128 * counts["LDS, STS"]) / gpu["shared"],
        "issue": WARPS * sum(counts.values()) / gpu["issue"],
        "fp32": lanes * (counts["FMUL, FFMA, FADD"] / gpu["fp32"] + counts["IMAD"] / 64),
        "integer": lanes * counts["other"] / gpu["integer"],
        "exp": lanes * counts["MUFU"] / gpu["mufu"],
        "shuffle": lanes * counts["SHFL, VOTE"] / gpu["shuffle"],
    }


def row(cells):
    print("| " + " | ".join(str(c) for c in cells) + " |")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    nvcc, nvdisasm = sys.argv[1:3]
    loops = {}
    with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else None) as folder:
        for name in sorted({k[0] for k in KERNELS}):
            for arch in ARCHITECTURES:
                found = functions(compile_and_disassemble(nvcc, nvdisasm, name, arch, folder))
                for file, kernel, d, rows in KERNELS:
                    if file == name:
                        function = next(f for symbol, f in found.items() if kernel in symbol)
                        loops[d, rows, arch] = inner_loop(function, hmma_of(rows, d))

    print("Instructions of one warp and tile of 64 keys (a whole tile, no new maximum):\n")
    row(["head width, rows, architecture", "all"] + [name for name, _ in CLASSES] + ["seldom"])
    row(["---"] * (len(CLASSES) + 3))
    for _, _, d, rows in KERNELS:
        for arch in ARCHITECTURES:
            loop, seldom = loops[d, rows, arch]
            counts = by_class(loop)
            row([f"{d}, {rows}, {arch / 10}", sum(counts.values())] + list(counts.values()) + [seldom])

    print("\nBank conflicts (1: none):\n")
    row(["head width", "access", "passes over the least"])
    row(["---"] * 3)
    for head, access, worst in conflicts():
        row([head, access, worst])

    print("\nClocks of a multiprocessor for a tile of a block; shares of the tensor cores' peak:\n")
    names = ["tensor", "shared", "issue", "fp32", "integer", "exp", "shuffle"]
    row(["GPU, head width, rows", "at peak"] + names + ["bound", "no overlap", "estimate", "bytes / FLOP", "TB/s at the bound"])
    row(["---"] * (len(names) + 7))
    for name, gpu in GPUS.items():
        for _, _, d, rows in KERNELS:
            loop, _ = loops[d, rows, gpu["arch"]]
            counts, n_hmma = by_class(loop), hmma_of(rows, d)
            c = clocks(gpu, counts, d, n_hmma)
            peak = WARPS * n_hmma * 2048 / gpu["fma"]
            most = max(c.values())
            # What is not products: its longest need, after products and their operands.
            rest = max(c["issue"] - WARPS * (counts["HMMA"] + counts["LDSM"]) / gpu["issue"], c["fp32"], c["integer"], c["exp"])
            serial = max(c["tensor"], c["shared"]) + rest
            traffic = 2 * KEYS * d * 2 / (4 * rows * KEYS * d)
            row([f"{name}, {d}, {rows}", round(peak)] + [round(c[n]) for n in names] +
                [f"{100 * peak / most:.0f} %", f"{100 * peak / serial:.0f} %", f"{100 * 2 * peak / (most + serial):.0f} %",
                 f"1/{round(1 / traffic)}", f"{peak / most * gpu['peak'] * traffic / 1e12:.1f}"])


main()
