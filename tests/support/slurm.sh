# Sourced: a Slurm of N nodes on this machine, all of it below one folder; gone at slurm_stop. As root, without systemd.
#   slurm_start FOLDER N   sets SLURM_CONF; fails, with the reason on stdout, where that is impossible
#   slurm_stop             ends what was started, by pid
# What each odd line is for was found out the hard way: a gres needs device files, or CUDA_VISIBLE_DEVICES stays unset;
# slurmds that share a TmpFS break --mpi=pmix over two nodes; more CPUs than there are need config_overrides.

slurm_folder=
slurm_pids=()

# Ports that nobody listens on, FIRST and the N + 1 after it.
slurm_free_ports() {
    local first=$1 n=$2 port
    for ((port = first; port <= first + n + 1; port++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 1; fi
    done
}

slurm_start() {
    local d=$1 n=$2 host i g port
    host=$(hostname -s)
    for i in munged slurmctld slurmd sbatch srun scontrol; do
        PATH=$PATH:/usr/sbin:/sbin command -v $i >/dev/null || { echo "no $i"; return 1; }
    done
    PATH=$PATH:/usr/sbin:/sbin
    [ "$(id -u)" -eq 0 ] || { echo "slurmd wants root"; return 1; }
    ls /usr/lib/*/slurm*/mpi_pmix*.so >/dev/null 2>&1 || { echo "a Slurm without PMIx"; return 1; }
    slurm_folder=$d
    mkdir -p "$d/munge" "$d/state" "$d/log"
    chmod 755 "$d"
    chmod 711 "$d/munge"
    dd if=/dev/urandom of="$d/munge/key" bs=128 count=1 status=none
    chmod 600 "$d/munge/key"
    port=$((12000 + ($$ * 37) % 15000)) # below the ports that the system gives to clients
    until slurm_free_ports $port "$n"; do port=$((port + n + 2)); done

    munged --force --foreground --key-file="$d/munge/key" --socket="$d/munge/sock" --pid-file="$d/munge/pid" \
        --log-file="$d/munge/log" --seed-file="$d/munge/seed" >/dev/null 2>&1 &
    slurm_pids+=($!)
    for ((i = 0; i < 100; i++)); do [ -S "$d/munge/sock" ] && break; sleep 0.05; done
    [ -S "$d/munge/sock" ] || { echo "munged does not start: $(tail -1 "$d/munge/log" 2>/dev/null)"; return 1; }

    cat >"$d/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$d/munge/sock
CryptoType=crypto/munge
SlurmctldPort=$port
StateSaveLocation=$d/state
SlurmdSpoolDir=$d/spool/%n
SlurmctldPidFile=$d/slurmctld.pid
SlurmdPidFile=$d/slurmd.%n.pid
SlurmctldLogFile=$d/log/slurmctld.log
SlurmdLogFile=$d/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=30
MailProg=/bin/true
TmpFS=$d/spool/%n/tmp
GresTypes=gpu
SlurmdParameters=config_overrides
CONF
    echo AutoDetect=off >"$d/gres.conf"
    for ((i = 0; i < n; i++)); do
        mkdir -p "$d/spool/n$i/tmp"
        for g in 0 1 2 3; do mknod "$d/spool/gpu${i}_$g" c 1 3 || { echo "no mknod"; return 1; }; done
        echo "NodeName=n$i Name=gpu File=$d/spool/gpu${i}_[0-3]" >>"$d/gres.conf"
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1 + i)) CPUs=8 RealMemory=4000" \
            "Gres=gpu:4 State=UNKNOWN" >>"$d/slurm.conf"
    done
    echo "PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >>"$d/slurm.conf"
    export SLURM_CONF=$d/slurm.conf
    export SLURM_PMIX_FENCE=tree # docs/pitfalls.md: without it one start in 500 crashes inside MPI_Init, on a machine at full load
    slurmctld -D -f "$d/slurm.conf" >"$d/log/slurmctld.out" 2>&1 &
    slurm_pids+=($!)
    for ((i = 0; i < n; i++)); do slurm_start_node $i; done
    for ((i = 0; i < 300; i++)); do
        [ "$(sinfo -h -t idle -o %D 2>/dev/null | head -1)" = "$n" ] && return 0
        sleep 0.1
    done
    echo "nodes do not come up: $(sinfo -h -o '%T %E' 2>&1 | head -2 | tr '\n' ' ')"
    return 1
}

slurm_start_node() { # the number of a node
    slurmd -D -N "n$1" -f "$SLURM_CONF" >"$slurm_folder/log/slurmd$1.out" 2>&1 &
    slurm_pids+=($!)
    echo $! >"$slurm_folder/slurmd$1.job"
}

# Processes that Slurm started here and that have each NAME=VALUE in their environment.
slurm_processes() {
    local found value
    found=$(grep -lzx "SLURM_CONF=$slurm_folder/slurm.conf" /proc/[0-9]*/environ 2>/dev/null) || true
    for value; do
        [ -z "$found" ] || found=$(grep -lzx "$value" $found 2>/dev/null) || true
    done
    [ -z "$found" ] || cut -d/ -f3 <<<"$found"
}
slurm_job_is_gone() { [ -z "$(slurm_processes "SLURM_JOB_ID=$1")" ]; }

# Node $1 dies as when its power fails: daemon, steps, scripts and ranks at once.
slurm_lose_node() {
    local pid parent processes steps=()
    processes=$(slurm_processes "SLURMD_NODENAME=n$1")
    for pid in $processes; do
        parent=$(awk '{ print $4 }' "/proc/$pid/stat" 2>/dev/null) || continue
        [ "$(cat "/proc/$parent/comm" 2>/dev/null)" != slurmstepd ] || steps+=("$parent")
    done
    # The steps first: they would tell how their processes ended.
    kill -9 "$(cat "$slurm_folder/slurmd$1.job")" "${steps[@]}" $processes 2>/dev/null || true
    scontrol update nodename="n$1" state=down reason=lost
}

slurm_stop() {
    local i pid
    [ -n "$slurm_folder" ] || return 0
    for ((i = ${#slurm_pids[@]} - 1; i >= 0; i--)); do kill "${slurm_pids[i]}" 2>/dev/null || true; done
    for ((i = 0; i < 50; i++)); do
        kill -0 "${slurm_pids[@]}" 2>/dev/null || break
        sleep 0.1
    done
    # Daemons that do not listen, and steps whose slurmd was killed.
    for pid in "${slurm_pids[@]}" $(slurm_processes 'SLURMD_NODENAME=.*'); do kill -9 "$pid" 2>/dev/null || true; done
    slurm_folder=
}
