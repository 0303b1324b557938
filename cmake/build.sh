#!/usr/bin/env bash
# cmake/build.sh FOLDER [cmake option...]: installs what is missing, configures and builds into FOLDER.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift

"$root/cmake/packages.sh"
mkdir -p "$folder"
echo "building into $folder" >&2
cmake -G Ninja -S "$root" -B "$folder" "$@" >"$folder/configure.log" 2>&1 || { cat "$folder/configure.log" >&2; exit 1; }
ninja -C "$folder" --quiet
