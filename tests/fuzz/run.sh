#!/usr/bin/env bash
# run.sh TARGET FOLDER: a reader under libFuzzer, from good files that the project's own writers make: some seconds, or
# 100 000 inputs with DYPE_FULL=1, in the order of DYPE_SEED. An input that a reader does not survive stays in FOLDER.
#   FUZZ_RUNS=1000000 run.sh ...      so many instead
#   FUZZ_CORPUS=DIR run.sh ...        begins with what lies in DIR/NAME too, and leaves there what it has found
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$(realpath "$1") name=$(basename "$1")
rm -rf "$2"
mkdir -p "$2/seeds" "$2/corpus"
cd "$2"

# Sanitizers as the targets want them, whatever other tests were told.
export ASAN_OPTIONS= UBSAN_OPTIONS=print_stacktrace=1
unset LSAN_OPTIONS
"$target" --seeds seeds
corpus=corpus
if [ -n "${FUZZ_CORPUS:-}" ]; then corpus=$FUZZ_CORPUS/$name; mkdir -p "$corpus"; fi

# No input takes a second; none of a few KB needs a GB.
limits=(-timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=8192)
if [ -n "${FUZZ_RUNS:-}" ]; then limits+=(-runs="$FUZZ_RUNS")
elif [ "${DYPE_FULL:-0}" = 1 ]; then limits+=(-runs=100000)
else limits+=(-max_total_time=4); fi
case ${name#fuzz_} in
job | png) words=${name#fuzz_} ;;
safetensors | shards | checkpoint | embeddings) words=safetensors ;;
*) words=json ;;
esac
limits+=(-dict="$here/$words.dict")

code=0
"$target" "${limits[@]}" -seed=$((${DYPE_SEED:-0} % 2147483647 + 1)) -print_final_stats=1 -artifact_prefix="$PWD/" "$corpus" seeds \
    >log 2>&1 || code=$?
number() { grep -aoE "^stat::$1: +[0-9]+" log | grep -oE '[0-9]+$' || echo 0; }
counts=$(grep -aoE '^inputs accepted: [0-9]+, refused: [0-9]+' log || true)
reached=$(grep -aoE 'cov: [0-9]+ ft: [0-9]+' log | tail -1)
# What the good files alone reach stands in the line INITED.
before=$(grep -aE 'INITED' log | grep -aoE 'cov: [0-9]+' || true)
echo "$name: $(number number_of_executed_units) inputs, $(number average_exec_per_sec)/s, $(number new_units_added) new ones kept," \
    "${before#cov: } -> $(grep -oE 'cov: [0-9]+' <<<"$reached" | cut -c6-) places reached, ${counts#inputs }"
if [ $code -ne 0 ]; then
    grep -av '^#' log | tail -60
    echo "FAILED: $name: the input is in $PWD; once more: $target FILE"
    exit 1
fi
# A target that accepts nothing, or refuses nothing, tests nothing.
if grep -qE 'accepted: 0,|refused: 0$' <<<"$counts"; then echo "FAILED: $counts"; exit 1; fi
