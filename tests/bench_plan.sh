#!/usr/bin/env bash
# The planner against runs on this machine: seconds of a step and of the decode at some sizes on 1 rank x 2 threads and 2
# ranks x 1 thread, then memory on 1, 2 and 4 ranks: the most that a rank has at once, anonymous and shared with its own
# pages counted once, minus that of a picture of 64 x 64. For docs/speed.md; run it on an otherwise idle machine.
#   tests/bench_plan.sh PROGRAM [SIZES ("512x512 1024x1024 2048x1024 2048x2048")] [MEMORY SIZE (2048x2048)]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "$1") sizes=${2:-512x512 1024x1024 2048x1024 2048x2048} memory_size=${3:-2048x2048}
source "$root/cmake/mpi.sh"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# job WxH STEPS: a job of one picture, cut over all ranks
job() {
    cat >job.yaml <<JOB
model: $root/models/demo
output: '{name}.png'
parallel: {replicas: 1}
defaults: {steps: $2, seed: 1, prompt: a dramatic mountain landscape at dawn}
pictures: [{name: p, width: ${1%x*}, height: ${1#*x}}]
JOB
}
# run RANKS THREADS OPTION...: leaves ./log
run() {
    rm -f log
    mpirun -n "$1" "$program" --threads "$2" --quiet --log-json log "${@:3}" job.yaml >out 2>&1 || { cat out >&2; exit 1; }
}
# figure EVENT KEY: a number of the first such event
figure() { grep "\"event\":\"$1\"" log | head -1 | grep -oE "\"$2\":[0-9.e+-]+" | head -1 | cut -d: -f2; }
# seconds PHASE of the picture
seconds() { grep "\"phase\":\"$1\"" log | grep -oE '"took_s":[0-9.e+-]+' | cut -d: -f2; }

job 512x512 2 && run 1 2 --overwrite # warms the page cache, and hashes the model
for size in $sizes; do
    for ranks in 1 2; do
        job "$size" 6
        run "$ranks" $((2 / ranks)) --plan
        planned_step=$(figure plan step_s) planned_decode=$(figure plan decode_s)
        run "$ranks" $((2 / ranks)) --overwrite
        step=$(awk -v s="$(figure picture step_loop_s)" 'BEGIN { print s / 6 }')
        awk -v size="$size" -v n="$ranks" -v ps="$planned_step" -v s="$step" -v pd="$planned_decode" -v d="$(seconds decode)" 'BEGIN {
            printf "%s, %d ranks x %d threads: step planned %.3f s, took %.3f s, ratio %.2f; decode planned %.2f s, took %.2f s, ratio %.2f\n",
                size, n, 2 / n, ps, s, ps / s, pd, d, pd / d }'
    done
done

# KiB of each rank now, in no order
own_memory() { for pid in $(pgrep -x "$(basename "$program")"); do
    awk '/^Pss_Anon|^Pss_Shmem/ {own += $2} END {print own + 0}' "/proc/$pid/smaps_rollup" 2>/dev/null || true; done; }
# peak RANKS: most KiB of any rank
peak() {
    local most=0 now
    run "$1" 1 --overwrite &
    while kill -0 $! 2>/dev/null; do
        now=$(own_memory | sort -n | tail -1)
        ((${now:-0} > most)) && most=$now
        sleep 0.02
    done
    wait $!
    echo "$most"
}
for ranks in 1 2 4; do
    job 64x64 1
    empty=$(peak "$ranks")
    job "$memory_size" 1
    most=$(peak "$ranks")
    planned=$(figure plan anonymous_bytes)
    awk -v size="$memory_size" -v n="$ranks" -v m=$((most - empty)) -v e="$empty" -v p="$planned" 'BEGIN {
        printf "%s, %d ranks: a rank has at most %.0f MiB beside the %.0f of an empty run, planned %.0f, ratio %.2f\n",
            size, n, m / 1024, e / 1024, p / 1048576, p / 1048576 / (m / 1024) }'
done
