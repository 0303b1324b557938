#!/usr/bin/env bash
# The first picture: installs what is missing, builds, renders jobs/demo.yaml with the model that ships in models/demo.
# Options are passed on: ./jobs/demo.sh --threads 1
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

cuda=OFF # kernels for six kinds of GPU take minutes to compile: only where a driver could run them
if ldconfig -p | grep 'libcuda\.so\.1' >/dev/null; then cuda=AUTO; fi
cmake/build.sh build -DWITH_TESTS=OFF -DWITH_CUDA=$cuda
source cmake/mpi.sh
ranks=$(( $(nproc) >= 2 ? 2 : 1 ))
exec mpirun -n "$ranks" build/dype-dist jobs/demo.yaml "$@"
