#!/usr/bin/env bash
# ranks_network.sh PROGRAM FOLDER: ranks on two hosts over TCP make the same picture as one rank alone, and keys and
# values really cross the network. The hosts, alpha and beta, are network namespaces of this machine joined by a veth
# pair; all lives in namespaces of its own and is gone when the script ends, however it ends. At the end the link is
# limited to LINK_MBIT (50): the bytes stay the same; the hidden share and planned seconds are reported, not asserted.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$1 folder=$2

# A machine that cannot do this says so and passes.
not_run() { echo "not run: two hosts over TCP ($*)"; exit 0; }

if [ "${3:-}" != inside ]; then
    for tool in mpirun unshare nsenter ip tc; do
        command -v "$tool" >/dev/null || not_run "no $tool"
    done
    own=(unshare --net --uts --mount --pid --fork --kill-child --mount-proc)
    [ "$(id -u)" -eq 0 ] || own+=(--user --map-root-user)
    why=$("${own[@]}" sh -c 'hostname alpha && ip link add link0 type veth peer name link1 &&
        tc qdisc add dev link0 root tbf rate 50mbit burst 128kb latency 100ms' 2>&1) || not_run "${why:-no namespaces}"
    grep -q libmpi <<<"$(ldd "$program")" || not_run "a build without MPI"
    exec "${own[@]}" bash "$0" "$program" "$folder" inside
fi

# ---- two hosts

hostname alpha
unshare --net --uts sleep infinity &
beta=$!
on_beta() { nsenter --target "$beta" --net --uts "$@"; }
until [ "$(readlink /proc/self/ns/net)" != "$(readlink "/proc/$beta/ns/net")" ]; do sleep 0.01; done
on_beta hostname beta
ip link add link0 type veth peer name link0 netns "$beta"
for on in "" on_beta; do
    $on ip link set lo up
    $on ip link set link0 up
done
ip address add 10.77.0.1/24 dev link0
on_beta ip address add 10.77.0.2/24 dev link0

# What ssh would be: agent HOST COMMAND...
cat >agent <<AGENT
#!/bin/sh
shift
exec nsenter --target $beta --net --uts sh -c "\$*"
AGENT
chmod +x agent

# two_hosts RANKS_PER_HOST MAP_BY PROGRAM-ARGUMENT...: ranks in blocks (slot) or in turn (node).
two_hosts() {
    local each=$1 map=$2
    shift 2
    timeout 200 mpirun -n $((2 * each)) --host "10.77.0.1:$each,10.77.0.2:$each" --map-by "$map" \
        --mca plm_rsh_agent "$PWD/agent" --mca oob_tcp_if_include 10.77.0.0/24 --mca btl_tcp_if_include 10.77.0.0/24 \
        --mca pml ob1 --mca btl self,vader,tcp "$program" "$@"
}

failures=0
check() { # check WHAT GOT TEST WANT: -ge of integers, = of words; nothing equals nothing
    if [ -n "$2" ] && [ "$2" "$3" "$4" ]; then return; fi
    echo "$1: got \"$2\", want $3 \"$4\""
    failures=$((failures + 1))
}

link_bytes() { awk '$1 == "link0:" { print $2 + $10 }' /proc/net/dev; } # both ways
words() { grep -oE "\"$1\":\"[^\"]*\"" "$2" | cut -d'"' -f4; }
numbers() { grep -oE "\"$1\":[-+0-9.e]+" "$2" | cut -d: -f2; }
total() { numbers "$1" "$2" | awk '{ s += $1 } END { printf "%.0f", s }'; }

# ---- the same picture

write_job() { # write_job FILE PARALLEL
    cat >"$1" <<JOB
model: $root/models/demo
output: '{name}.png'
parallel: $2
defaults: {steps: 3, seed: 11, width: 304, height: 208, position: {method: yarn, dype: true}}
pictures: [{name: lake, prompt: a dramatic mountain landscape at noon with a lake}]
JOB
}
write_job ring.yaml '{replicas: 1, ulysses: 1}'
write_job hybrid.yaml '{replicas: 1, ulysses: 2}'

"$program" --quiet --overwrite --threads 1 --log-json alone.json ring.yaml
latents=$(words latents_sha256 alone.json)
pixels=$(words pixels_sha256 alone.json)
[ ${#latents} -eq 64 ] && [ ${#pixels} -eq 64 ] || { echo "no checksums in alone.json"; exit 1; }

# same NAME RANKS_PER_HOST MAP_BY JOB: sets crossed, sent.
same() {
    local before
    rm -f "$1.json"
    before=$(link_bytes)
    two_hosts "$2" "$3" --quiet --overwrite --threads 1 --log-json "$1.json" "$4" ||
        { echo "$1: exit code $?"; failures=$((failures + 1)); return; }
    crossed=$(($(link_bytes) - before)) sent=$(total exchange_bytes "$1.json")
    check "$1: latents" "$(words latents_sha256 "$1.json")" = "$latents"
    check "$1: pixels" "$(words pixels_sha256 "$1.json")" = "$pixels"
    echo "$1: $sent bytes of keys and values sent, $crossed bytes crossed the link in all"
}
same ring-2 1 slot ring.yaml
check "ring-2: bytes on the link" "$crossed" -ge "$sent"
# Each host has to see the other's keys and values, once: what two ranks send each other. Ranks of one Ulysses group sit
# on one host, also when they are started in turn.
once=$sent
for run in "ring-4 slot ring" "hybrid-4 slot hybrid" "hybrid-4-in-turn node hybrid"; do
    read -r name map job <<<"$run"
    same "$name" 2 "$map" "$job.yaml"
    check "$name: bytes on the link" "$crossed" -ge "$once"
done

# ---- a slow link

cat >scaling.yaml <<JOB
model: $root/models/demo
defaults: {steps: 4, width: 384, height: 384, prompt: ""}
pictures: [{name: square}]
JOB

# measure NAME: benchmark and plan of two ranks; NAME.row is the ordered ring's row.
measure() {
    local common=(--quiet --threads 1 scaling.yaml)
    two_hosts 1 slot --bench --out "$1" --log-json "$1.json" "${common[@]}" || failures=$((failures + 1))
    two_hosts 1 slot --plan --log-json "$1-plan.json" "${common[@]}" || failures=$((failures + 1))
    grep '"scaling":"strong","n_ranks":2,"schedule":"ordered","ulysses":1,' "$1.json" >"$1.row"
}
mkdir fast slow
measure fast
limit="rate ${LINK_MBIT:-50}mbit burst 128kb latency 100ms"
tc qdisc add dev link0 root tbf $limit
on_beta tc qdisc add dev link0 root tbf $limit
measure slow

check "bytes per step over the slow link" "$(numbers bytes slow.row)" = "$(numbers bytes fast.row)"
check "latents over the slow link" "$(words latents_sha256 slow.row)" = "$(words latents_sha256 fast.row)"
for link in fast slow; do
    awk -v link=$link -v step="$(numbers step_s $link.row)" -v hidden="$(numbers hidden $link.row)" \
        -v bytes="$(numbers bytes $link.row)" -v planned="$(numbers step_s $link-plan.json)" \
        -v waiting="$(numbers waiting_s $link-plan.json)" -v rate="$(numbers link_bytes_s $link-plan.json)" 'BEGIN {
            printf "%s link: %.2f s per step, %.0f %% of the transfers hidden, %d bytes sent; ",
                link, step, 100 * hidden, bytes
            printf "planned %.2f s, %.2f s of it waiting, over %.1f MB/s\n", planned, waiting, rate * 1e-6 }'
done

[ "$failures" -eq 0 ]
