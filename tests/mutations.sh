#!/usr/bin/env bash
# mutations.sh FOLDER [NAME... | --sample N | --all | --list] [--write]: puts deliberate faults into the CUDA backend, one at a
# time, and wants the tests in FOLDER (built with nvcc) to catch each; docs/mutations.md, mutations.py. Without more words a
# sample of 2 drawn from DYPE_SEED, with DYPE_FULL=1 of 6. The sources and FOLDER's programs stay as they are.
set -euo pipefail
folder=$(cd "${1:?mutations.sh FOLDER [NAME... | --sample N | --all | --list] [--write]}" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -e "$folder/vgpu/libcudart.so.13" ]; then
    echo "not run: mutation tests (built without CUDA)"
    exit 0
fi
if [ ! -e "$folder/build.ninja" ]; then
    echo "not run: mutation tests (they ask ninja how things are built)"
    exit 0
fi
if [ $# -eq 0 ]; then set -- --sample "$([ "${DYPE_FULL:-0}" = 1 ] && echo 6 || echo 2)"; fi
source "$root/cmake/mpi.sh"
exec python3 "$root/tests/mutations.py" "$folder" "$folder/tests/cuda_mutations.scratch" "$@"
