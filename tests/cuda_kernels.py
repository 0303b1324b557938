"""cuda_kernels.py [--write] TABLE SOURCES FOLDER: what each kernel needs on each architecture, from the cubins under FOLDER,
against the committed TABLE (CSV); --write writes it and its page (TABLE with .md).

A cubin is an ELF file: .nv.info lists by kernel attribute 0x2f (registers) and 0x11 (bytes of its local frame);
.nv.shared.KERNEL is its static shared memory. Dynamic shared memory and threads are launch parameters: LAUNCH below repeats
those of the sources.
"""
import csv
import pathlib
import struct
import subprocess
import sys

SLACK = 8  # registers: what another patch release of ptxas may change without anybody being the worse

# Per multiprocessor: registers, shared memory in KiB, threads, blocks. CUDA programming guide, technical specifications.
LIMITS = {80: (65536, 164, 2048, 32), 86: (65536, 100, 1536, 16), 89: (65536, 100, 1536, 24),
          90: (65536, 228, 2048, 32), 100: (65536, 228, 2048, 32), 120: (65536, 100, 1536, 24)}
MAX_PER_BLOCK = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB
RESERVED = 1024  # bytes of shared memory that the system takes of every block

# kernel (start of its plain name) -> threads, dynamic shared bytes at its largest: FLUX's shapes
LAUNCH = {
    "attention_bf16_kernel<64, false, 2": (256, (256 + 256) * 64 * 2),
    "attention_bf16_kernel<128, false, 2": (256, (256 + 256) * 128 * 2),
    "attention_bf16_kernel<64": (256, (128 + 256) * 64 * 2),
    "attention_bf16_kernel<128": (256, (128 + 256) * 128 * 2),
    "attention_bf16_wide_kernel": (256, (64 * 512 + 3 * 64 * 64 + 64 * 64) * 2),
    "attention_f32_kernel<float, 64": (256, (16 * 64 + 64 * 36 + 16 * 64) * 4),
    "attention_f32_kernel<float, 128": (256, (16 * 128 + 64 * 36 + 16 * 64) * 4),
    "attention_f32_kernel<float, 512": (256, (16 * 512 + 8 * 512 + 16 * 64) * 4),
    "attention_f32_kernel<__nv_bfloat16, 64": (256, (16 * 64 + 64 * 36 + 16 * 64) * 4),
    "attention_f32_kernel<__nv_bfloat16, 128": (256, (16 * 128 + 64 * 36 + 16 * 64) * 4),
    "attention_f32_kernel<__nv_bfloat16, 512": (256, (16 * 512 + 8 * 512 + 16 * 64) * 4),
    "conv_bf16_kernel": (256, 2 * (10 * 18 + 3 * 64) * 40 * 2),
    "conv_f32_kernel": (256, (10 * 10 + 9 * 64) * 16 * 4),
}
THREADS = 256  # of all others
LARGE = ("attention_bf16_kernel<128, false, 2",)  # where a block does not fit, the program launches another


def sections(data):
    """(name, size, content) of an ELF file."""
    at, = struct.unpack_from("<Q", data, 40)
    entry, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * entry) for i in range(count)]
    strings = headers[names][4]
    for h in headers:
        name = data[strings + h[0]:data.index(b"\0", strings + h[0])].decode()
        content = b"" if h[1] == 8 else data[h[4]:h[4] + h[5]]
        yield name, h[5], content


def attribute_of(info, symbols, wanted):
    """One attribute of .nv.info by kernel: entries {form, attribute, size}, here with a payload {symbol, value}."""
    found, at = {}, 0
    while at + 4 <= len(info):
        form, attribute, size = info[at], info[at + 1], struct.unpack_from("<H", info, at + 2)[0]
        at += 4
        if form != 4:  # the value is in the header itself
            continue
        if attribute == wanted and size == 8:
            symbol, value = struct.unpack_from("<II", info, at)
            found[symbols[symbol]] = value
        at += size
    return found


def kernels(cubin):
    """name -> (registers, static shared bytes, local bytes)."""
    data = cubin.read_bytes()
    all_sections = list(sections(data))
    by_name = {name: (size, content) for name, size, content in all_sections}
    table, strings = by_name[".symtab"][1], by_name[".strtab"][1]
    symbols = {}
    for i in range(len(table) // 24):
        name, = struct.unpack_from("<I", table, i * 24)
        symbols[i] = strings[name:strings.index(b"\0", name)].decode()
    if ".nv.info" not in by_name:
        return {}
    frames = attribute_of(by_name[".nv.info"][1], symbols, 0x11)
    registers = attribute_of(by_name[".nv.info"][1], symbols, 0x2f)
    found = {}
    for name, _, _ in all_sections:
        if name.startswith(".text."):
            kernel = name[len(".text."):]
            shared = by_name.get(".nv.shared." + kernel, (0, b""))[0]
            found[kernel] = (registers[kernel], shared, frames.get(kernel, 0))
    return found


def plain_names(mangled):
    out = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for raw, name in zip(mangled, out.splitlines()):
        name = name.replace("void ", "", 1) if name.startswith("void ") else name
        depth = 0
        for i, c in enumerate(name):  # without the arguments
            depth += c == "<"
            depth -= c == ">" and name[i - 1] != "-"
            if c == "(" and depth == 0 and not name.startswith("(anonymous", i):
                name = name[:i]
                break
        names[raw] = name.replace("(anonymous namespace)::", "").replace("(int)", "").replace("(bool)", "")
    return names


def launch(name):
    for start, shape in LAUNCH.items():
        if name.startswith(start):
            return shape
    return THREADS, 0


def occupancy(arch, name, registers, static):
    """Warps that fit a multiprocessor, of those it can hold, in percent; and bytes of shared memory of a block."""
    threads, dynamic = launch(name)
    regs, shared_kib, max_threads, max_blocks = LIMITS[arch]
    shared = static + dynamic
    if shared > MAX_PER_BLOCK[arch] * 1024 and name.startswith(LARGE):
        return 0, shared
    assert shared <= MAX_PER_BLOCK[arch] * 1024, f"{name}: {shared} bytes of shared memory do not fit {arch}"
    warps = threads // 32
    by_registers = regs // (-(-registers * 32 // 256) * 256 * warps)  # given out in units of 256 a warp
    by_shared = shared_kib * 1024 // (-(-(shared + RESERVED) // 128) * 128)
    blocks = min(by_registers, by_shared, max_threads // threads, max_blocks)
    return 100 * blocks * threads // max_threads, shared


def measure(sources, folder):
    rows = []
    for source in sorted(sources.glob("*.cu")):
        for arch in LIMITS:
            cubins = sorted((folder / source.stem).glob(f"*_{arch}.cubin"))
            assert len(cubins) == 1, f"{source.stem}: {len(cubins)} cubins for {arch}"
            found = kernels(cubins[0])
            names = plain_names(list(found))
            for raw in sorted(found, key=lambda k: names[k]):
                registers, static, local = found[raw]
                percent, shared = occupancy(arch, names[raw], registers, static)
                rows.append({"file": source.name, "kernel": names[raw], "architecture": str(arch),
                             "registers": str(registers), "shared_bytes": str(shared), "local_bytes": str(local),
                             "occupancy_percent": str(percent)})
    return rows


def key(row):
    return row["file"], row["kernel"], row["architecture"]


def compare(want, got):
    wrong = []
    known = {key(r): r for r in want}
    seen = {key(r): r for r in got}
    for k in sorted(set(known) | set(seen)):
        if k not in seen:
            wrong.append(f"{k}: in the table, but no longer compiled")
        elif k not in known:
            wrong.append(f"{k}: not in the table")
        else:
            for column, slack in (("registers", SLACK), ("shared_bytes", 0), ("local_bytes", 0)):
                if int(seen[k][column]) > int(known[k][column]) + slack:
                    wrong.append(f"{k}: {column} {seen[k][column]}, the table says {known[k][column]}")
            if int(seen[k]["occupancy_percent"]) < int(known[k]["occupancy_percent"]):
                wrong.append(f"{k}: occupancy {seen[k]['occupancy_percent']} %, the table says "
                             f"{known[k]['occupancy_percent']} %")
    return wrong


def write(path, rows):
    with path.open("w", newline="") as f:
        out = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    lines = ["# What the CUDA kernels need", "",
             "Registers a thread, shared memory a block (static and dynamic, at FLUX's shapes), and the share of a",
             "multiprocessor's warps that fit at once (0: too much shared memory there, another kernel is launched): from the",
             "machine code, by `tests/cuda_build.sh NVCC FOLDER --write`.",
             "No kernel spills registers (an error of the build). The test `cuda_build` compares with cuda-kernels.csv.", "",
             "| kernel | shared KiB | " + " | ".join(f"{a}: regs, % warps" for a in LIMITS) + " |",
             "|---|---|" + "---|" * len(LIMITS)]
    by_kernel = {}
    for r in rows:
        by_kernel.setdefault((r["file"], r["kernel"]), {})[int(r["architecture"])] = r
    file = None
    for (source, kernel), archs in by_kernel.items():
        if source != file:
            lines.append(f"| **{source}** | |" + " |" * len(LIMITS))
            file = source
        cells = [f"{archs[a]['registers']}, {archs[a]['occupancy_percent']}" for a in LIMITS]
        lines.append(f"| `{kernel}` | {int(archs[80]['shared_bytes']) / 1024:.1f} | " + " | ".join(cells) + " |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main(arguments):
    writes = arguments[0] == "--write"
    table, sources, folder = (pathlib.Path(a) for a in arguments[writes:])
    rows = measure(sources, folder)
    if writes:
        write(table, rows)
        print(f"{table.name}: {len(rows)} rows written")
        return 0
    with table.open(newline="") as f:
        wrong = compare(list(csv.DictReader(f)), rows)
    for line in wrong:
        print(line)
    print(f"{len(rows)} kernels and architectures, {len(wrong)} differences from {table.name}")
    return 1 if wrong else 0


sys.exit(main(sys.argv[1:]))
