"""Calls dype-dist for the measurements."""
import os
import shutil
import subprocess
import sys

from pictures import HERE


def add_options(parser, required=False):
    parser.add_argument("--program", required=required, help="path of dype-dist")
    parser.add_argument("--model", default=os.path.join(HERE, ".."))
    parser.add_argument("--ranks", type=int, default=len(os.sched_getaffinity(0)) if shutil.which("mpirun") else 1,
                        help="by default one per core where mpirun is installed: small pictures are rendered side by side")
    parser.add_argument("--threads", type=int, default=0, help="of each rank; by default 1 where there are more ranks, else all cores")


def call(args, folder, *options):
    """Runs it in the folder; ends this program where it fails."""
    command = [os.path.abspath(args.program), "--quiet"]
    if args.threads or args.ranks > 1:
        command += ["--threads", str(args.threads or 1)]
    if args.ranks > 1:
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        command = ["mpirun", *root, "--bind-to", "none", "-n", str(args.ranks)] + command
    code = subprocess.run(command + list(options), cwd=folder).returncode
    if code != 0:
        sys.exit(f"{' '.join(command + list(options))}: exit code {code}; the same command goes on from here")
