#!/usr/bin/env bash
# Stands for the program where it lives in a container: DYPE_DIST=$PWD/slurm/in-container.sh sbatch slurm/render.sbatch ...
# From the environment: DYPE_DIST_SIF (dype-dist.sif); APPTAINER_BIND for folders beside the home and the current one.
set -euo pipefail
exec apptainer run "${DYPE_DIST_SIF:-dype-dist.sif}" "$@"
