#!/usr/bin/env bash
# cluster_slurm.sh PROGRAM FOLDER: a real Slurm of two nodes on this machine runs slurm/*.sbatch. A job over both nodes, by
# srun and by mpirun; one that is warned by the signal of its time limit, one that is requeued by hand, one whose node is
# lost, one whose rank is killed: each goes on where it stopped, and its PNG has the bytes of an unbroken run. The signals that
# reach the ranks of a step, Ctrl-C and scancel: saved, and gone on with on 1, 2 and 3 ranks. An array of four pictures, submitted
# by submit.sh; the scaling benchmark. With DYPE_FULL=1 all signals, not one, and the time limit's is that of a real limit, not
# scancel's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$1 folder=$(realpath "$2")
source "$root/tests/support/slurm.sh"

not_run() { echo "not run: Slurm ($*)"; exit 0; }
grep -q libmpi <<<"$(ldd "$program")" || not_run "a build without MPI"

# Daemons want a short path, and all must be gone at the end, however it ends.
cluster=$(mktemp -d /tmp/dype-slurm-XXXXXX)
trap 'slurm_stop; rm -rf "$cluster"' EXIT
slurm_start "$cluster" 2 >why || not_run "$(cat why)"

export DYPE_DIST=$program
unset LAUNCH OUT CHUNK RANKS MAX_RESTARTS
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# await SECONDS CONDITION...: whether it came true in time.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
state() { scontrol show job "$1" 2>/dev/null | grep -oE 'JobState=[A-Z_]+' | cut -d= -f2 | sort -u | tr '\n' ' '; }
is() { local s; s=$(state "$1"); [ "${s% }" = "$2" ]; }
ended() { ! [[ $(state "$1") =~ (PENDING|RUNNING|CONFIGURING|COMPLETING|SUSPENDED|REQUEUED) ]]; }
submit() { sbatch --parsable --cpus-per-task=1 --gpus-per-node=1 --time=5 "$@"; }

# expect_done JOB WHAT: it completes, and its picture is the unbroken one's.
expect_done() {
    await 60 ended "$1" || true
    is "$1" COMPLETED || { fail "$2: job is $(state "$1")"; tail -30 "$2.log"; }
    cmp "$2/$2.png" "alone/$2.png" || fail "$2: another picture than the unbroken run's"
}
# After a requeue Slurm lets two minutes pass, so that the last start's end cannot be taken for the next one's. Nobody waits
# here: a second after the last process of the job is gone, it starts; with time enough, so that it is not warned again.
start_again() {
    await 30 is "$1" PENDING || { fail "job $1 was not requeued: $(state "$1")"; return 0; }
    await 30 slurm_job_is_gone "$1" || fail "job $1: processes stay"
    sleep 1
    scontrol update jobid="$1" TimeLimit=10 StartTime=now
    await 30 started_again "$1" || fail "job $1 does not start: $(scontrol show job "$1" | grep -oE 'Reason=[A-Za-z_]+')"
}
started_again() { ! is "$1" PENDING; }
# fail_job JOB WHAT: with its state and the end of its log.
fail_job() { fail "$1: $2: job is $(state "$(cat "$1.id")"): $(tail -5 "$1.log")"; }
steps_are_under_way() { grep -qE "step ([3-9]|[1-9][0-9]+)/" "$1.log" 2>/dev/null; }
# expect_saved FOLDER PICTURE: its latent is there, the picture is not.
expect_saved() {
    [ -s "$1/.dype-dist/$2.checkpoint" ] || fail "$1: no checkpoint: $(ls -A "$1" "$1/.dype-dist")"
    [ ! -e "$1/$2.png" ] || fail "$1: a picture already"
}
# The last start's first step is not the picture's first.
expect_resumed() {
    sed -n '/start 2:/,$p' "$1.log" >"$1.second"
    grep -qE ' step [0-9]+/' "$1.second" || fail "$1: no second start"
    if grep -qE ' step 1/' "$1.second"; then fail "$1: began anew"; fi
}

# ---- what each job must become, by one process

# The name of a picture does not change its bytes: one picture stands for several.
write_job() { # write_job NAME STEPS [checkpoint: every]
    cat >"$1.yaml" <<JOB
model: $root/models/demo
output: '{name}.png'
checkpoint: {every: ${3:-5}}
defaults: {steps: $2, width: 320, height: 256, prompt: a dramatic mountain landscape at noon with a lake}
pictures: [{name: $1}]
JOB
}
for name in srun mpirun; do write_job $name 8; done
write_job step 100 0 # no checkpoints but those of signals
sed 's/every: 0/every: 2/' step.yaml >step-often.yaml
for name in signal requeue loss killed; do write_job $name 250; done
# A warning ahead of the time limit comes after half a minute or so.
if [ "${DYPE_FULL:-0}" = 1 ]; then write_job signal 1000; fi
cat >array.yaml <<JOB
model: $root/models/demo
output: '{name}-{seed}.png'
defaults: {steps: 4, width: 256, height: 192}
pictures:
  - {name: a, prompt: a dramatic mountain landscape at dawn, seeds: [1, 2]}
  - {name: b, prompt: a dramatic mountain landscape at noon, seeds: [1, 2]}
JOB
for name in srun step signal requeue array; do
    "$program" --quiet --threads 2 --out alone "$name.yaml" || fail "$name: alone: exit code $?"
done
cp alone/srun.png alone/mpirun.png
cp alone/requeue.png alone/loss.png
cp alone/requeue.png alone/killed.png

# ---- both launchers, over both nodes

two=(--nodes=2 --ntasks-per-node=1)
started=$SECONDS
LAUNCH=srun OUT=srun submit "${two[@]}" --output=srun.log "$root/slurm/render.sbatch" srun.yaml >srun.id
LAUNCH=mpirun OUT=mpirun submit "${two[@]}" --output=mpirun.log "$root/slurm/render.sbatch" mpirun.yaml >mpirun.id
for name in srun mpirun; do
    expect_done "$(cat $name.id)" $name
    log=$(echo $name/dype-dist-*.json)
    [ "$(grep '"state":"done"' "$log" | grep -oE '"rows":[1-9]' | wc -l)" -eq 2 ] || fail "$name: not two ranks with rows"
    grep -q "on n\[0-1\]" $name.log || fail "$name: not on two nodes"
    if grep -q $'\r' $name.log; then fail "$name: a live line in a log file"; fi
done
echo "two nodes, both launchers: $((SECONDS - started)) s"

# ---- signals to a step

# interrupt KIND: starts the picture on two nodes, sends it there, waits; the exit code of srun in $code.
interrupt() {
    local job=step.yaml
    [ "$1" != ctrl-c ] || job=step-often.yaml
    rm -rf "step-$1"
    # A shell's background jobs ignore SIGINT; one at a terminal does not.
    env --default-signal=INT srun --job-name="step-$1" --mpi=pmix "${two[@]}" --cpus-per-task=1 "$program" --threads 1 \
        --out "step-$1" $job >"step-$1.log" 2>&1 &
    local pid=$!
    await 30 steps_are_under_way "step-$1" || fail "step-$1: no steps: $(tail -3 "step-$1.log")"
    case $1 in
    # Once, srun only tells the state of its tasks. Twice, it kills them right behind the SIGINT: what periodic checkpoints have
    # saved is left.
    ctrl-c) kill -INT $pid; sleep 0.3; kill -INT $pid ;;
    *) scancel --signal="$1" --name="step-$1" ;;
    esac
    code=0
    wait $pid || code=$?
}
go_on() { # go_on KIND RANKS
    local again=step-$1-on-$2
    rm -rf "$again"
    cp -a "step-$1" "$again"
    srun --mpi=pmix --ntasks="$2" --cpus-per-task=1 "$program" --threads 1 --out "$again" step.yaml >"$again.log" 2>&1 ||
        fail "$again: exit code $?: $(tail -3 "$again.log")"
    if ! grep -q 'goes on after step' "$again.log" || grep -qE ' step 1/' "$again.log"; then fail "$again: began anew"; fi
    cmp "$again/step.png" alone/step.png || fail "$again: another picture than the unbroken run's"
    [ "$(ls -A "$again/.dype-dist")" = step.journal ] || fail "$again: left $(ls -A "$again/.dype-dist")"
}

started=$SECONDS
kinds=(USR1 TERM INT ctrl-c)
if [ "${DYPE_FULL:-0}" != 1 ]; then kinds=("${kinds[${DYPE_SEED:-0} % 4]}"); fi
for kind in "${kinds[@]}"; do
    interrupt "$kind"
    expect_saved "step-$kind" step
    case $kind in # 75 where the step has ended before the kill
    ctrl-c) [[ $code =~ ^(75|137)$ ]] || fail "ctrl-c: exit code $code" ;;
    *) [ "$code" -eq 75 ] && grep -q "stopped by SIG$kind after step" "step-$kind.log" || fail "$kind: exit code $code" ;;
    esac
    for ranks in 1 2 3; do go_on "$kind" $ranks; done
done
echo "signals to a step (${kinds[*]}), on 1, 2 and 3 ranks again: $((SECONDS - started)) s"

# Cancelled, it saves and stays away. A script that gets a TERM, as where preemption tells the script, has its ranks save.
started=$SECONDS
for kind in cancelled told; do
    LAUNCH=srun OUT=$kind submit "${two[@]}" --output=$kind.log "$root/slurm/render.sbatch" step.yaml >$kind.id
    await 30 steps_are_under_way $kind || fail_job $kind "no steps"
    case $kind in
    cancelled) scancel "$(cat $kind.id)" ;;
    told)
        scancel --batch --signal=TERM "$(cat $kind.id)"
        await 30 grep -q '^== .*exit code 75' $kind.log || fail "$kind: $(tail -3 $kind.log)"
        ;;
    esac
    await 30 slurm_job_is_gone "$(cat $kind.id)" || fail "$kind: processes stay"
    expect_saved $kind step
done
await 30 is "$(cat cancelled.id)" CANCELLED || fail "cancelled: job is $(state "$(cat cancelled.id)")"
await 30 is "$(cat told.id)" PENDING || fail "told: job is $(state "$(cat told.id)")"
scancel "$(cat told.id)"
echo "scancel, and a TERM to the script: $((SECONDS - started)) s"

# ---- the signal of the time limit: by mpirun, which is told by the script

started=$SECONDS
if [ "${DYPE_FULL:-0}" = 1 ]; then limit=(--time=2 --signal=B:USR1@100); else limit=(); fi
LAUNCH=mpirun OUT=signal submit "${two[@]}" "${limit[@]}" --output=signal.log "$root/slurm/render.sbatch" signal.yaml >signal.id
# Slurm may be early with it: then it comes at one of the first steps.
signal_steps() { steps_are_under_way signal || grep -qs "^== .*exit code 75" signal.log; }
await 30 signal_steps || fail_job signal "no steps"
[ ${#limit[@]} -gt 0 ] || scancel --batch --signal=USR1 "$(cat signal.id)"
await 70 grep -q "^== .*exit code" signal.log || fail "signal: the job goes on"
grep -q "^== .*exit code 75" signal.log || fail "signal: $(grep '^== .*exit code' signal.log)"
start_again "$(cat signal.id)"
expect_done "$(cat signal.id)" signal
expect_resumed signal
echo "signal, exit code 75, requeue: $((SECONDS - started)) s"

# ---- requeued by hand, and a lost node

started=$SECONDS
LAUNCH=srun OUT=requeue submit "${two[@]}" --output=requeue.log "$root/slurm/render.sbatch" requeue.yaml >requeue.id
await 30 steps_are_under_way requeue || fail_job requeue "no steps"
scontrol requeue "$(cat requeue.id)"
start_again "$(cat requeue.id)"
expect_done "$(cat requeue.id)" requeue
expect_resumed requeue
echo "scontrol requeue: $((SECONDS - started)) s"

# The node dies: daemon, script and ranks at once. The other node takes the job.
started=$SECONDS
LAUNCH=srun OUT=loss submit --nodes=1 --ntasks-per-node=2 --output=loss.log "$root/slurm/render.sbatch" loss.yaml >loss.id
# Nobody tells these ranks: what they have saved is what there is.
await 60 test -s loss/.dype-dist/loss.checkpoint || fail_job loss "no checkpoint"
node=$(scontrol show job "$(cat loss.id)" | grep -oE 'BatchHost=n[01]' | cut -d= -f2)
slurm_lose_node "${node#n}" 2>/dev/null # the shell tells of its killed child
start_again "$(cat loss.id)"
expect_done "$(cat loss.id)" loss
expect_resumed loss
if grep 'start 2:' loss.log | grep "on $node" >/dev/null; then fail "loss: again on $node"; fi
slurm_start_node "${node#n}"
scontrol update nodename="$node" state=resume
await 30 test "$(sinfo -h -t idle -o %D)" = 2 || fail "loss: $node does not come back"
echo "loss of a node: $((SECONDS - started)) s"

# ---- a killed rank

# Memory runs out on one node, say. srun waits for the other rank as long as it is told; the other one waits for the dead.
started=$SECONDS
SLURM_WAIT=3 LAUNCH=srun OUT=killed submit "${two[@]}" --output=killed.log "$root/slurm/render.sbatch" killed.yaml >killed.id
await 60 test -s killed/.dype-dist/killed.checkpoint || fail_job killed "no checkpoint"
kill -9 $(slurm_processes "SLURM_JOB_ID=$(cat killed.id)" SLURM_PROCID=1) || fail_job killed "no second rank"
await 30 ended "$(cat killed.id)" || fail_job killed "the other rank stays"
grep -q '^== .*exit code 137' killed.log && is "$(cat killed.id)" FAILED || fail_job killed "not failed by 137"
LAUNCH=srun OUT=killed submit "${two[@]}" --output=killed.second "$root/slurm/render.sbatch" killed.yaml >killed.id
expect_done "$(cat killed.id)" killed
grep -q 'goes on after step' killed.second || fail "killed: began anew"
echo "a killed rank: $((SECONDS - started)) s"

# ---- four pictures, four tasks, as the planner says

started=$SECONDS
DYPE_DIST_CACHE=$PWD/cache OUT=array MACHINE=here RANKS=1 CPUS_PER_TASK=1 GPUS_PER_NODE=2 "$root/slurm/submit.sh" --array array.yaml >submitted
id=$(grep -oE 'Submitted batch job [0-9]+' submitted | grep -oE '[0-9]+')
grep -q -- '--array=0-3 ' submitted || fail "array: $(cat submitted)"
await 60 ended "$id" || true
is "$id" COMPLETED || fail "array: tasks are $(state "$id")"
for name in a-1 a-2 b-1 b-2; do cmp "array/$name.png" "alone/$name.png" || fail "array: $name"; done
[ "$(cat array/*.json | grep -c '"state":"done"')" -eq 4 ] || fail "array: not each picture once"
# Two prompts, two pictures each: those that come at the same time wait for one another.
[ "$(cat array/*.json | grep -c '"rows":"encoders"')" -eq 2 ] || fail "array: $(cat array/*.json | grep -c '"rows":"encoders"') prompts encoded"
[ -z "$(find cache -name '*.lock')" ] || fail "array: $(find cache -name '*.lock')"
echo "array of four: $((SECONDS - started)) s"

# ---- scaling

started=$SECONDS
cat >scaling.yaml <<JOB
model: $root/models/demo
pictures: [{name: small, prompt: "", width: 128, height: 128, steps: 2}]
JOB
OUT=scaling submit "${two[@]}" --exclusive=user --output=scaling.log "$root/slurm/scaling.sbatch" scaling.yaml >scaling.id
await 60 ended "$(cat scaling.id)" || true
is "$(cat scaling.id)" COMPLETED || { fail "scaling: $(state "$(cat scaling.id)")"; tail scaling.log; }
[ "$(wc -l <scaling/scaling-small.csv)" -gt 3 ] && grep -q '<svg' scaling/scaling-small.svg || fail "scaling: no table or plot"
echo "scaling: $((SECONDS - started)) s"

[ "$failures" -eq 0 ]
