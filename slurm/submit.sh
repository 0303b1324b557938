#!/usr/bin/env bash
# Asks the planner what a job file needs and submits it: GPUs, nodes, memory and time filled in.
#   slurm/submit.sh [--array] [--dry-run] JOB.yaml [dype-dist option...]
# As few GPUs as the pictures fit on, doubled until the slowest picture takes at most MINUTES or there are MAX_RANKS. With
# --array: one task per picture (or per CHUNK), each on so many. --dry-run shows the command. From the environment:
#   DYPE_DIST        the program (build/dype-dist); OUT, LAUNCH, CHUNK, DYPE_DIST_CACHE go on to the job (render.sbatch)
#   MACHINE          h100 (default), a100, l40s, l40, l20, rtx4090; here: CPUs like this machine's, which is measured
#   GPUS_PER_NODE    4; with MACHINE=here: ranks per node
#   RANKS            so many ranks, instead of choosing
#   MAX_RANKS        8
#   MINUTES          10
#   MAX_HOURS        24: a job that takes longer stops in time, and is queued again
#   CPUS_PER_TASK    8
# Account, partition and all else by sbatch's own variables: SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_QOS, ...
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd)
array=0 dry_run=0
while :; do
    case ${1:-} in
    --array) array=1 ;;
    --dry-run) dry_run=1 ;;
    *) break ;;
    esac
    shift
done
job=${1:?usage: submit.sh [--array] [--dry-run] JOB.yaml [dype-dist option...]}
shift
DYPE_DIST=$(realpath "${DYPE_DIST:-build/dype-dist}")
export DYPE_DIST
machine=${MACHINE:-h100} per_node_max=${GPUS_PER_NODE:-4} chunk=${CHUNK:-1}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
kind=(--for "$machine")
[ "$machine" != here ] || kind=()

numbers() { grep -oE "\"$1\":[-+0-9.eE]+" "$folder/plan" | cut -d: -f2; }
largest() { numbers "$1" | sort -g | tail -1; }

# plan RANKS: its events, one line per picture; fails with 5 where they do not fit.
plan() {
    rm -f "$folder/plan"
    "$DYPE_DIST" --plan --quiet "${kind[@]}" --ranks "$1" --log-json "$folder/plan" "${@:2}" "$job" 2>"$folder/said"
}

ranks=${RANKS:-1}
while :; do
    code=0
    plan "$ranks" "$@" || code=$?
    if [ "$code" -ne 0 ] && { [ "$code" -ne 5 ] || [ -n "${RANKS:-}" ]; }; then cat "$folder/said" >&2; exit "$code"; fi
    enough=$([ "$code" -eq 0 ] && awk -v s="$(largest picture_s)" -v m="${MINUTES:-10}" 'BEGIN { print s <= 60 * m }' || echo 0)
    [ "$enough" -eq 0 ] && [ -z "${RANKS:-}" ] && [ $((2 * ranks)) -le "${MAX_RANKS:-8}" ] || break
    ranks=$((2 * ranks))
done
if [ "$code" -ne 0 ]; then cat "$folder/said" >&2; exit "$code"; fi

n_pictures=$(numbers picture_s | wc -l)
n_tasks=$(((n_pictures + chunk - 1) / chunk))
nodes=$(((ranks + per_node_max - 1) / per_node_max))
per_node=$(((ranks + nodes - 1) / nodes))

# Seconds of computing, and a quarter more; ten minutes and two seconds per GB of weights to start.
if [ "$array" -eq 1 ]; then
    seconds=$(awk -v s="$(largest picture_s)" -v n="$chunk" 'BEGIN { print s * n }')
else
    seconds=$(numbers picture_s | awk -v r="$(largest replicas)" '{ s += $1 } END { print s / r }')
fi
minutes=$(awk -v s="$seconds" -v w="$(largest weights_bytes)" -v h="${MAX_HOURS:-24}" 'BEGIN {
    m = int((1.25 * s + 600 + 2e-9 * w) / 60) + 1
    print m < 60 * h ? m : 60 * h }')

# Memory of a node: the mapped weights once; per rank what it allocates, or with a GPU its host side and staging buffers.
own=$(largest anonymous_bytes) spare=1024
[ "$machine" = here ] || { own=$(largest host_bytes) spare=4096; }
memory=$(awk -v n="$per_node" -v own="$own" -v w="$(largest weights_bytes)" -v spare="$spare" 'BEGIN {
    print int(n * (own / 1048576 + spare) + 1.1 * w / 1048576) + 1 }')

command=(sbatch --nodes="$nodes" --ntasks="$ranks" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-8}"
    --mem="${memory}M" --time="$minutes")
[ "$machine" = here ] && command+=(--gpus-per-node=0) || command+=(--gpus-per-node="$per_node")
if [ "$array" -eq 1 ]; then
    command+=(--array="0-$((n_tasks - 1))" "$scripts/array.sbatch")
else
    command+=("$scripts/render.sbatch")
fi
command+=("$job" "$@")

awk -v n="$n_pictures" -v r="$ranks" -v nodes="$nodes" -v machine="$machine" -v step="$(largest step_s)" \
    -v picture="$(largest picture_s)" -v all="$seconds" -v memory="$memory" -v array="$array" 'BEGIN {
    printf "%d picture%s on %d rank%s, %d node%s (%s): at most %.3g s per step, %.3g s per picture, %.3g s %s; ", n,
        n == 1 ? "" : "s", r, r == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s", machine, step, picture, all,
        array ? "per task" : "in all"
    printf "%.1f GB of memory per node\n", memory / 1024 }'
printf '%q ' "${command[@]}"
printf '\n'
[ "$dry_run" -eq 1 ] || "${command[@]}"
