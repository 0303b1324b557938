#!/usr/bin/env bash
# script.sh TEST PROGRAM FOLDER: runs a test written for the shell, in FOLDER, new and empty, with the settings of ranks and no cache.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
source "$root/cmake/mpi.sh"
export DYPE_DIST_CACHE=none # nothing is kept from one run to the next unless a test wants it
rm -rf "$3"
mkdir -p "$3"
cd "$3"
exec bash "$1" "$2" "$3"
