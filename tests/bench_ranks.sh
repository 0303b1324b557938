#!/usr/bin/env bash
# What ranks cost on one machine: wall and processor seconds of the step loop of one picture on 1 rank x 2 threads,
# 2 ranks x 1 thread and 8 ranks x 1 thread, interleaved, as ratios to the first in the same round; the median of the
# rounds. For docs/speed.md; run it on an otherwise idle machine.
#   tests/bench_ranks.sh PROGRAM [ROUNDS (5)] [SIDE in px (1024)] [PARALLEL of the job (one ring)] [STEPS (6)]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "$1") rounds=${2:-5} side=${3:-1024} parallel=${4:-'{replicas: 1, ulysses: 1}'} steps=${5:-6}
source "$root/cmake/mpi.sh" # binds no rank to a core, as --bind-to none

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >job.yaml <<JOB
model: $root/models/demo
output: '{name}.png'
parallel: $parallel
defaults: {steps: $steps, seed: 1, width: $side, height: $side, prompt: a dramatic mountain landscape at dawn}
pictures: [{name: square}]
JOB

run() { # run RANKS THREADS: one line of the log, its picture event
    rm -f log
    mpirun -n "$1" "$program" --threads "$2" --quiet --overwrite --log-json log job.yaml >out 2>&1 ||
        { cat out >&2; exit 1; }
    grep '"event":"picture"' log
}
# Of one event: slowest rank's wall seconds, all ranks' processor seconds, latents.
figures() {
    local event=$1
    printf '%s ' "$(grep -oE '"step_loop_s":[0-9.e+-]+' <<<"$event" | cut -d: -f2 | sort -g | tail -1)"
    grep -oE '"step_loop_cpu_s":[0-9.e+-]+' <<<"$event" | awk -F: '{ s += $2 } END { printf "%.4f ", s }'
    grep -oE '"latents_sha256":"[0-9a-f]+"' <<<"$event" | cut -d'"' -f4
}

ranks=(1 2 8) threads=(2 1 1)
run 1 2 >/dev/null # warms the page cache, and hashes the model
for ((round = 1; round <= rounds; round++)); do
    for i in 0 1 2; do
        event=$(run "${ranks[i]}" "${threads[i]}")
        echo "$round ${ranks[i]} ${threads[i]} $(figures "$event")"
    done
done | tee rows | awk '{
    printf "round %d: %d x %d threads: wall %.3f s, processor %.3f s, latents %.8s\n", $1, $2, $3, $4, $5, $6 }'

awk '
    function median(list, n,    i, j, t) {
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && list[j] < list[j - 1]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
        return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
    }
    function line(n,    r) {
        for (r = 1; r <= rounds; r++) { w[r] = wall[r, n] / wall[r, 1]; c[r] = cpu[r, n] / cpu[r, 1] }
        printf "%d ranks against 1 x 2 threads, median of %d: wall %.3f, ", n, rounds, median(w, rounds)
        printf "processor %.3f (%.3f to %.3f)\n", median(c, rounds), c[1], c[rounds] # median has sorted c
    }
    { rounds = $1; wall[$1, $2] = $4; cpu[$1, $2] = $5; if (NR > 1 && $6 != hash) wrong = 1; hash = $6 }
    END { line(2); line(8); if (wrong) { print "latents differ"; exit 1 } }' rows
