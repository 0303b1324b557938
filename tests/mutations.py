"""mutations.py FOLDER SCRATCH [NAME... | --sample N | --all | --list] [--write]: deliberate faults in the CUDA backend, which the
tests must catch on the virtual GPU.

FOLDER holds the tests, built; it is only read. A source with a fault is compiled in SCRATCH, with the command that ninja has for
it, and linked before the library, whose own object then stays out. --sample draws from DYPE_SEED; --write puts the results of
--all into docs/mutations.md.

tests/mutations/*.faults hold the faults, a paragraph each:

    == name
    file  kernels/cuda/norm.cu
    unit  kernels/cuda/norm.cu     only where file is a header: the source that is compiled
    what  one sentence
    try   unit_kernels_cpu unit_kernels_bits:norm*     what should catch it, the cheapest first; after a colon, some tests of it
    unseen reason                  only where no test here can catch it: --all holds it to that too
    @@
     a line that stays
    -a line that goes
    +a line that comes

From @@ on it is a piece of a patch without numbers: what it says of the old file must be there exactly once.
"""
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/mutations"
PAGE = ROOT / "docs/mutations.md"
BEGIN, END = "<!-- written by tests/mutations.sh --all --write -->\n", "<!-- end of what is written -->\n"
LEAST_LIMIT_S, LIMIT_RATIO = 60, 10  # a test that takes longer, and so much longer than without a fault, hangs
RANKS_SEEDS = 3  # with several ranks a forgotten wait shows in most orders of work, not in all
MESSAGE = 150  # characters of it that the table shows

Fault = collections.namedtuple("Fault", "name file unit what tests unseen old new")
Run = collections.namedtuple("Run", "failed output seconds hangs")


def give_up(text):
    sys.exit("mutations: " + text)


def read_faults():
    faults = []
    for path in sorted(LIST.glob("*.faults")):
        for paragraph in re.split(r"\n\n+(?==)", path.read_text()):
            if not paragraph.startswith("=="):
                continue  # what the file says of itself
            head, _, body = paragraph.rstrip("\n").partition("\n@@\n")
            field = {key: text.strip() for key, _, text in (line.partition(" ") for line in head.splitlines())}
            lines = [line if line else " " for line in body.splitlines()]
            if not {"==", "file", "what", "try"} <= set(field) or not lines or any(line[0] not in " -+" for line in lines):
                give_up(f"{path.name}: not a fault:\n{paragraph}")
            faults.append(Fault(field["=="], field["file"], field.get("unit", field["file"]), field["what"], field["try"].split(),
                                field.get("unseen"),
                                "".join(line[1:] + "\n" for line in lines if line[0] != "+"),
                                "".join(line[1:] + "\n" for line in lines if line[0] != "-")))
    names = [fault.name for fault in faults]
    for name in names:
        if names.count(name) > 1:
            give_up(f"{names.count(name)} faults are named {name}")
    return faults


def with_fault(fault):
    """The text of the file with the fault in it."""
    text = "\n" + (ROOT / fault.file).read_text()
    if text.count("\n" + fault.old) != 1:
        give_up(f"{fault.name}: {fault.file} has these lines {text.count(fault.old)} times, want once:\n{fault.old}")
    return text.replace("\n" + fault.old, "\n" + fault.new)[1:]


class Workshop:
    """The built tests, and the folder where programs with faults are made."""

    def __init__(self, folder, scratch):
        self.folder, self.scratch, self.tree = folder, scratch, scratch / "tree"
        shutil.rmtree(scratch, ignore_errors=True)
        for part in ("src", "kernels", "comm"):
            shutil.copytree(ROOT / part, self.tree / part)
        units = json.loads(self.ninja("-t", "compdb"))
        self.commands = {unit["file"]: unit for unit in units if "/dype.dir/" in unit["output"]}
        built = (folder / "libdype.a").stat().st_mtime
        for source in (path for folder in ("kernels/cuda", "comm", "src") for path in ROOT.glob(folder + "/*")):
            if (str(source) in self.commands or "h" in source.suffix) and source.stat().st_mtime > built:
                give_up(f"{source} is newer than {folder}: build the tests first")

    def ninja(self, *args):
        return subprocess.run(["ninja", *args], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def shell(self, command, what):
        done = subprocess.run(command, cwd=self.folder, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            give_up(f"{what}: does not build: nobody tells whether a test would catch it\n{done.stdout}")

    def compile(self, fault):
        """The object of the fault's unit, of the tree as it is now: PTX of compute_80, no warnings."""
        unit = self.commands[str(ROOT / fault.unit)]
        made = self.scratch / "fault.o"
        command = unit["command"].replace(f"{ROOT}/", f"{self.tree}/").replace(unit["output"], str(made))
        command = re.sub(r" --generate-code=\S+| -Werror( all-warnings)?| -Xptxas=\S+| -Xcompiler=\S+", "", command) + " -w"
        if fault.unit.endswith(".cu"):
            command += " --generate-code=arch=compute_80,code=compute_80"
        self.shell(command, fault.name)
        return made

    def link(self, program, made, what):
        """`program` of the folder, with the object in place of the library's."""
        command = self.ninja("-t", "commands", "-s", program)
        out = self.scratch / pathlib.Path(program).name
        command = command.replace(f"-o {program} ", f"-o {out} ", 1)
        self.shell(re.sub(r"(?<=\s)libdype\.a(?=\s)", f"{made} libdype.a", command, count=1), what)
        return out


def end_all(mark):
    """Ends what still runs with that mark in its environment: a timeout and mpirun have groups of their own."""
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)
        except OSError:
            pass  # another's, or gone


def run_test(folder, programs, test, limit_s, seed=1):
    """programs: in place of those of the folder. The seed also is that of the order of work on the virtual GPUs."""
    name, _, pattern = test.partition(":")
    mark = f"DYPE_MUTATION={os.getpid()}-{time.monotonic_ns()}"
    environment = dict(os.environ, DYPE_DIST_CACHE="none", DYPE_FULL="0", DYPE_SEED=str(seed), VGPU_NCCL_TIMEOUT_S="30",
                       **dict([mark.split("=")]))
    if pattern:
        environment["DYPE_TEST_ONLY"] = pattern
    if "dype-dist" in programs:
        environment["DYPE_TEST_PROGRAM"] = str(programs["dype-dist"])
    if not name.startswith("ranks_"):  # those choose their devices themselves
        environment.update(LD_LIBRARY_PATH=str(folder / "vgpu"), VGPU_MEMORY="80G", DYPE_TEST_DEVICE="cuda", VGPU_CHECK_GLOBAL="1")
    began, hangs = time.monotonic(), False
    child = subprocess.Popen([str(programs.get(name, folder / "tests" / name))], cwd=folder, env=environment,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        hangs = True
        end_all(mark)
        output, _ = child.communicate()
    output = output.decode(errors="replace")
    if child.returncode == 0 and "[ RUN      ]" not in output:
        give_up(f"{test}: no such test")
    return Run(child.returncode != 0 or hangs, output, time.monotonic() - began, hangs)


def testimony(run):
    """Who saw the fault, and what was said first."""
    def first(pattern):
        found = re.search(pattern, run.output, re.MULTILINE)
        return found.groups() if found else None
    strict = first(r"^vgpu: (.*?)(?: \[\w+\])?$(?:\n    kernel (?:void )?([\w<>, ]+)\(.*?, PTX line \d+: (\S+))?")
    failed = first(r"^\[  FAILED  \] (\w+)$")
    said = (first(r"^(rank \d+ of \d+, line \d+: .*); last message") or first(r"^ERROR: (.*)") or
            first(r"^\[  ERROR   \] --- (.*)") or ["failed"])[0]
    who, kernel = "comparison", ""
    if strict:
        who, said = "virtual GPU", strict[0]
        if strict[1]:
            kernel = f" (`{strict[1].strip()}`, `{'.'.join(strict[2].split('.')[:3]).rstrip(';')}`)"
    if run.hangs:
        who, said = "time limit" + (f", after the {who}" if strict else ""), said if strict else f"still there after {run.seconds:.0f} s"
    said = re.sub(r" at 0x[0-9a-f]{6,}|[( ]0x[0-9a-f]{9,}\)?", "", said)
    if len(said) > MESSAGE:
        said = said[:MESSAGE - 1] + "…"
    return who, (f"`{failed[0]}`: " if failed and not strict else "") + said.replace("<", "&lt;") + kernel


def show(text):
    print(text, flush=True)


def choose(faults, args):
    """--sample N, --all, or names."""
    if "--all" in args:
        return faults
    if "--sample" in args:
        n = int(args[args.index("--sample") + 1])
        return random.Random(int(os.environ.get("DYPE_SEED", "0"))).sample([f for f in faults if not f.unseen], n)
    by_name = {fault.name: fault for fault in faults}
    for name in args:
        if name not in by_name:
            give_up(f"no fault is named {name}")
    return [by_name[name] for name in args]


def limit_of(shop, test, limits):
    """Seconds for a test; at its first use it must pass without a fault."""
    if test not in limits:
        run = run_test(shop.folder, {}, test, 600)
        if run.failed:
            give_up(f"{test} fails without a fault:\n{run.output}")
        limits[test] = max(LEAST_LIMIT_S, LIMIT_RATIO * run.seconds)
        show(f"passes without a fault: {test} ({run.seconds:.1f} s)")
    return limits[test]


def try_fault(shop, fault, limits):
    """The first test that fails with the fault, who saw it, and what was said; None when all pass."""
    changed = shop.tree / fault.file
    changed.write_text(with_fault(fault))
    made, programs = shop.compile(fault), {}
    shutil.copy(ROOT / fault.file, changed)
    for test in fault.tests:
        name = test.partition(":")[0]
        if name not in programs:
            programs[name] = shop.link(f"tests/{name}", made, fault.name)
        if name == "ranks_cuda" and "dype-dist" not in programs:
            programs["dype-dist"] = shop.link("dype-dist", made, fault.name)
        for seed in range(1, 1 + (RANKS_SEEDS if name.startswith("ranks_") else 1)):
            run = run_test(shop.folder, programs, test, limit_of(shop, test, limits), seed)
            if run.failed:
                (shop.scratch / f"{fault.name}.txt").write_text(run.output)
                who, said = testimony(run)
                return test, who, said
    return None


def write_page(rows):
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(rows) + "\n\n" + END + after)


def main():
    args = [arg for arg in sys.argv[3:] if arg != "--write"]
    faults = read_faults()
    for fault in faults:
        with_fault(fault)  # all of them, so that the list cannot rot
    if args == ["--list"]:
        for fault in faults:
            show(f"{fault.name:32} {fault.file}: {fault.what}")
        return
    shop = Workshop(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
    built = [fault for fault in faults if str(ROOT / fault.unit) in shop.commands]
    if len(built) < len(faults):
        show(f"not run: {len(faults) - len(built)} mutations (their files are not built here: no NCCL, no MPI)")
    chosen = choose(built, args)
    if not chosen:
        give_up("which faults? NAME..., --sample N, --all or --list")

    limits = {}
    seen, unseen, wrong = [], [], []
    for fault in chosen:
        began = time.monotonic()
        caught = try_fault(shop, fault, limits)
        place = f"| {fault.what} | {pathlib.Path(fault.file).name}: `{fault.name}` |"
        if caught is None:
            show(f"{'not seen' if fault.unseen else 'SURVIVES'}: {fault.name}: {fault.what} ({', '.join(fault.tests)})")
            unseen.append(f"{place} {fault.unseen} |")
        else:
            test, who, said = caught
            show(f"caught: {fault.name}: {test}, {who}: {said} ({time.monotonic() - began:.1f} s)")
            seen.append(f"{place} `{test}` | {who} | {said.replace('|', chr(92) + '|')} |")
        if (caught is None) != (fault.unseen is not None):
            wrong.append(fault.name)
    show(f"{len(seen)} faults caught")
    if wrong:
        give_up("survive, or are said to and do not: " + ", ".join(wrong))
    if "--all" in args and "--write" in sys.argv:
        write_page(["| fault | in | caught by | seen by | what was said |", "|---|---|---|---|---|"] + seen +
                   ["", f"Each of these {len(seen)} faults is caught. The following are not, and do not count; they are compiled and linked in "
                   "the same way, so it is not the way that fails tests:", "",
                    "| fault | in | why |", "|---|---|---|"] + unseen)


main()
