#!/usr/bin/env bash
# packages.sh [cluster|fuzz]: installs with apt what building and testing need and this machine lacks. Does nothing when all
# is there. Instead, and only for tests/run.sh: with `cluster` the Slurm that tests/cluster_slurm.sh runs, with `fuzz` the
# compiler and runtime of tests/fuzz.
set -euo pipefail

wanted=(gcc g++ cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libyaml-dev libpng-dev libjansson-dev
        libsentencepiece-dev libutf8proc-dev libssl-dev zlib1g-dev libdnnl-dev libfftw3-dev libcmocka-dev
        libsimde-dev libzstd-dev)
if [ "${1:-}" = cluster ]; then wanted=(slurm-wlm munge); fi
if [ "${1:-}" = fuzz ]; then wanted=(clang-14 libclang-rt-14-dev); fi
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}" >&2
if ! command -v apt-get >/dev/null; then
    echo "this script knows apt only; please install the like of: ${missing[*]}" >&2
    exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
