#!/usr/bin/env bash
# The first picture: installs what is missing, builds, renders jobs/demo.yaml with the model that ships in models/demo.
# Options are passed on: ./jobs/demo.sh --threads 1
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

cmake/build.sh build -DWITH_TESTS=OFF
source cmake/mpi.sh
ranks=$(( $(nproc) >= 2 ? 2 : 1 ))
exec mpirun -n "$ranks" build/dype-dist jobs/demo.yaml "$@"
