#!/usr/bin/env bash
# Builds and runs the tests: a seeded sample of every kind, or every count with --full.
#   tests/run.sh [--full]        DYPE_SEED=N tests/run.sh repeats the sample of seed N
# Four builds: as users have it (warnings are errors; CUDA where nvcc is, as PTX alone), with sanitizers (without CUDA), without
# MPI, and the readers of files under libFuzzer (without CUDA).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

export DYPE_FULL=0
case "${1:-}" in
    --full) export DYPE_FULL=1 ;;
    "") ;;
    *) echo "usage: tests/run.sh [--full]" >&2; exit 2 ;;
esac
export DYPE_SEED=${DYPE_SEED:-$((RANDOM * 32768 + RANDOM))}
export VGPU_SEED=${VGPU_SEED:-$DYPE_SEED} # the virtual GPU's order of streams, blocks and warps
echo "seed $DYPE_SEED, $([ $DYPE_FULL = 1 ] && echo 'every count' || echo 'a sample')"

source cmake/mpi.sh
export ASAN_OPTIONS=fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0 not_run=()
cmake/packages.sh cluster || echo "no Slurm: its test says so" >&2
cmake/packages.sh fuzz || not_run+=("not run: readers of files under libFuzzer (no clang-14 with its runtime)")

# build FOLDER cmake-option...: a build that fails counts as one failed test, and the rest goes on.
build() {
    cmake/build.sh "$@" || { echo "build of $1 failed" >&2; failed=$((failed + 1)); return 1; }
}

# run NAME FOLDER ctest-option...: one line per test as it ends; adds to the counts; shows the output of what failed.
run() {
    local name=$1 folder=$2 log=$2/ctest.log all bad
    shift 2
    echo "== $name"
    { cd "$folder" && ctest --output-on-failure -j "$(nproc)" "$@" 2>&1 || true; } | tee "$log" |
        sed -unE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: //p'
    all=$(grep -oE 'tests failed out of [0-9]+' "$log" | grep -oE '[0-9]+' || echo 0)
    bad=$(grep -oE '[0-9]+ tests failed' "$log" | grep -oE '[0-9]+' || echo 0)
    if [ "$all" -eq 0 ]; then echo "no test ran: $name"; all=1 bad=1; fi
    [ "$bad" -eq 0 ] || cat "$log"
    passed=$((passed + all - bad)) failed=$((failed + bad))
    # What a test could not do here it says in a line of its own.
    mapfile -t -O ${#not_run[@]} not_run < <(grep -aohE '^not run: .*' "$folder/Testing/Temporary/LastTest.log")
}

if build build/tests -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DCUDA_FAST=ON; then
    run "tests" build/tests
    # Its share is to stay below 10 minutes on 2 cores; tests run on all cores side by side.
    sed -nE 's/^cuda += +([0-9.]+) sec\*proc \(([0-9]+) tests?\)/\1 \2/p' build/tests/ctest.log | while read -r took n; do
        awk -v took="$took" -v n="$n" -v cores="$(nproc)" 'BEGIN {
            printf "CUDA code: %d tests, %.0f s, %.1f minutes of this run on %d cores\n", n, took, took / cores / 60, cores }'
    done
fi
if build build/sanitize -DWITH_SANITIZERS=ON -DWITH_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g"; then
    run "address and undefined behaviour sanitizers" build/sanitize -R '^(unit_|fault_|cli_|ranks_comm$)' \
        -E '^(unit_(attention_simde|kernels_cpu)|fault_(journal|signals|disk))$' # the three hit moments of a run at speed
fi
if build build/single -DWITH_MPI=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DCUDA_FAST=ON; then
    run "without MPI" build/single -R '^(unit_(status|device|geometry|job)|ranks_comm|cli_.*|parity_(transformer|picture)|(unit_device|parity_picture)_cuda)$'
fi
if [[ ${not_run[*]} != *libFuzzer* ]] && build build/fuzz -DWITH_FUZZERS=ON -DWITH_CUDA=OFF \
    -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14; then
    run "readers of files under libFuzzer" build/fuzz
    grep -aE '^fuzz_[a-z]+: ' build/fuzz/Testing/Temporary/LastTest.log || true
fi

grep -qw avx512_bf16 /proc/cpuinfo || not_run+=("not run: oneDNN's bf16 products (this processor has none)")
not_run+=("not run: FLUX.1-dev's real dimensions (tests/full_size, by hand)" "not run: a real GPU (the CUDA code ran on the virtual one, where nvcc is)")
printf '%s\n' "${not_run[@]}" | sort -u
grep -ahoE '^PTX coverage: .*' build/tests/Testing/Temporary/LastTest.log || echo "PTX coverage: not measured (built without CUDA)"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
