#!/usr/bin/env bash
# Builds and runs the tests: a seeded sample of every kind, or every count with --full.
#   tests/run.sh [--full]        DYPE_SEED=N tests/run.sh repeats the sample of seed N
# Four builds: as users have it (warnings are errors), with sanitizers, without MPI, and the installation.
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
echo "seed $DYPE_SEED, $([ $DYPE_FULL = 1 ] && echo 'every count' || echo 'a sample')"

source cmake/mpi.sh
export ASAN_OPTIONS=fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0 not_run=()

# run NAME FOLDER ctest-option...: adds to the counts; a failing test shows its output.
run() {
    local name=$1 folder=$2 log
    shift 2
    log=$folder/ctest.log
    echo "== $name"
    (cd "$folder" && ctest --output-on-failure -j "$(nproc)" "$@") >"$log" 2>&1 || true
    grep -E '^ *[0-9]+/[0-9]+ Test' "$log" | sed -E 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: //' || true
    local all bad
    all=$(grep -oE 'tests failed out of [0-9]+' "$log" | grep -oE '[0-9]+' || echo 0)
    bad=$(grep -oE '[0-9]+ tests failed' "$log" | grep -oE '[0-9]+' || echo 0)
    if [ "$all" -eq 0 ]; then echo "no test ran: $name"; cat "$log"; bad=1; fi
    [ "$bad" -eq 0 ] || cat "$log"
    passed=$((passed + all - bad)) failed=$((failed + bad))
}

cmake/build.sh build/tests -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
run "tests" build/tests

cmake/build.sh build/sanitize -DWITH_SANITIZERS=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g"
run "address and undefined behaviour sanitizers" build/sanitize -R '^(unit|fault|cli)_' -E '^unit_(attention_simde|kernels_cpu)$'

cmake/build.sh build/single -DWITH_MPI=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
run "without MPI" build/single -R '^(unit_(status|device|geometry|job)|cli_.*|parity_transformer)$'

echo "== installation"
cmake --install build/tests --prefix build/installed >/dev/null
if [ "$(build/installed/bin/dype-dist --version)" = "$(build/tests/dype-dist --version)" ]; then
    passed=$((passed + 1))
else
    echo "the installed program does not start" && failed=$((failed + 1))
fi

grep -qw avx512f /proc/cpuinfo || not_run+=("AVX-512 kernels on the processor itself (emulated only)")
grep -qw avx512_bf16 /proc/cpuinfo || not_run+=("oneDNN's bf16 products")
not_run+=("FLUX.1-dev's real dimensions (tests/full_size)" "a GPU (there is no CUDA code yet)")
for what in "${not_run[@]}"; do echo "not run: $what"; done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
