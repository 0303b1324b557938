#!/usr/bin/env bash
# script.sh TEST PROGRAM FOLDER: runs a test written for the shell, in FOLDER, new and empty, with the settings of ranks.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
source "$root/cmake/mpi.sh"
rm -rf "$3"
mkdir -p "$3"
cd "$3"
exec bash "$1" "$2" "$3"
