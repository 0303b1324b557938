#!/usr/bin/env bash
# cuda_build.sh NVCC FOLDER [--write]: compiles every kernel for all architectures without a warning and without a spilled
# register, and compares what each needs with docs/cuda-kernels.csv. A kernel that is not in the table, that is in it alone,
# that needs more than SLACK more registers, or more shared or local memory than noted, is an error; --write makes the table
# anew. Needs no GPU and no cuobjdump: the numbers are in the cubins (cuda_kernels.py).
set -euo pipefail
nvcc=$1 scratch=$2 write=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
table=$root/docs/cuda-kernels.csv
rm -rf "$scratch"
mkdir -p "$scratch"
architectures=(80 86 89 90 100 120)

# As CMakeLists.txt compiles them.
flags=(-std=c++17 -fmad=false -Xptxas --warn-on-spills -Xptxas -Werror -Xcompiler -Wall,-Wno-unused-function -O3
       -I "$root/kernels/cuda" -I "$root/kernels" -I "$root/src")
targets=()
for a in "${architectures[@]}"; do targets+=(-gencode "arch=compute_$a,code=sm_$a"); done
targets+=(-gencode arch=compute_80,code=compute_80)

compile() {
    local name
    name=$(basename "$1" .cu)
    mkdir -p "$scratch/$name"
    "$nvcc" "${flags[@]}" "${targets[@]}" --keep --keep-dir "$scratch/$name" -c "$1" -o "$scratch/$name.o" \
        >"$scratch/$name.log" 2>&1 || { cat "$scratch/$name.log"; echo "$name: does not compile"; return 1; }
    if [ -s "$scratch/$name.log" ]; then cat "$scratch/$name.log"; echo "$name: warnings"; return 1; fi
}

failed=0 running=0
for source in "$root"/kernels/cuda/*.cu; do
    compile "$source" &
    running=$((running + 1))
    if [ $running -ge "$(nproc)" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
done
while [ $running -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ $failed -eq 0 ] || exit 1
echo "${architectures[*]}: all compile without a warning"
python3 "$root/tests/cuda_kernels.py" $write "$table" "$root/kernels/cuda" "$scratch"
