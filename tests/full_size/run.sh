#!/usr/bin/env bash
# tests/full_size/run.sh DIR [ranks]: one step of a 256 x 256 picture with a model of FLUX.1-dev's real shape, T5 at 512
# tokens included. Writes the model into DIR first if it is not there (33 GB). Watches memory of all ranks twice a second and
# fails when anonymous + shared memory (shared pages once) pass 8 GiB, when swap is used, or when MemAvailable falls under
# 1 GiB. Not part of tests/run.sh. Figures: docs/speed.md.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mkdir -p "$1" && cd "$1" && pwd)
ranks=${2:-2}

"$root/cmake/build.sh" "$root/build/tests"
ninja -C "$root/build/tests" --quiet write_full_size_model
if [ ! -e "$dir/complete" ]; then
    rm -rf "$dir/model"
    mkdir "$dir/model"
    echo "writing the model"
    time "$root/build/tests/tests/write_full_size_model" "$dir/model"
    touch "$dir/complete"
fi
cat >"$dir/job.yaml" <<J
model: model
output: $dir/{name}.png
defaults: {steps: 1}
pictures:
  - {name: full, prompt: a range of mountains at dawn, width: 256, height: 256}
J

source "$root/cmake/mpi.sh"
swap_before=$(awk '/^SwapTotal/ {t = $2} /^SwapFree/ {print t - $2}' /proc/meminfo)
rm -f "$dir/log.json"
mpirun -n "$ranks" "$root/build/tests/dype-dist" "$dir/job.yaml" --overwrite --log-json "$dir/log.json" "${@:3}" &
run=$!

# KiB: anonymous, shared and file pages of all ranks, pages that ranks share counted once (Pss)
peak_own=0 peak_file=0 least_available=$((1 << 40)) most_swap=0
while kill -0 "$run" 2>/dev/null; do
    read -r own file < <(for pid in $(pgrep -x dype-dist); do cat "/proc/$pid/smaps_rollup" 2>/dev/null || true; done |
        awk '/^Pss_Anon|^Pss_Shmem/ {own += $2} /^Pss_File/ {file += $2} END {print own + 0, file + 0}')
    available=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
    swap=$(($(awk '/^SwapTotal/ {t = $2} /^SwapFree/ {print t - $2}' /proc/meminfo) - swap_before))
    ((own > peak_own)) && peak_own=$own
    ((file > peak_file)) && peak_file=$file
    ((available < least_available)) && least_available=$available
    ((swap > most_swap)) && most_swap=$swap
    sleep 0.5
done
wait "$run" && rc=0 || rc=$?
mib() { echo "$(($1 / 1024)) MiB"; }
echo "exit code $rc, $ranks ranks"
echo "anonymous + shared memory, peak: $(mib $peak_own) (limit 8192)"
echo "mapped model pages, peak:        $(mib $peak_file)"
echo "MemAvailable, least:             $(mib $least_available) (limit 1024)"
echo "swap used:                       $(mib $most_swap) (limit 0)"
[ "$rc" -eq 0 ] && ((peak_own <= 8 << 20)) && ((least_available >= 1 << 20)) && ((most_swap <= 0))
