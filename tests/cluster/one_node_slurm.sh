#!/usr/bin/env bash
# Runs a command inside a Slurm of one node on this machine, and takes the Slurm down again.
#
#   sudo tests/cluster/one_node_slurm.sh srun -n 2 .venv/bin/transformer train --config ...
#   sudo tests/cluster/one_node_slurm.sh sbatch --wait deploy/train.sbatch
#
# Needs Debian's packages slurm-wlm and munge, and root, since slurmd starts other people's tasks.
# Everything it writes is in a folder of its own under /tmp; a Slurm that is already there is left alone.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
for program in slurmctld slurmd munged; do
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin
    command -v "$program" >/dev/null || { echo "$program: not found; apt-get install slurm-wlm munge" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "must be run as root" >&2; exit 2; }

home=$(mktemp -d -t one-node-slurm.XXXXXX)
host=$(hostname -s)
tasks=${SLURM_TASKS_AT_ONCE:-8}
mkdir "$home/state" "$home/spool"
pids=()
finish() {
    # In the opposite order of their start; by number, since another Slurm may run here.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ "${KEEP:-}" ] || rm -rf "$home"
}
trap finish EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

head -c 1024 /dev/urandom >"$home/munge.key"
chmod 400 "$home/munge.key"
munged --foreground --force --socket="$home/munge.socket" --key-file="$home/munge.key" \
    --pid-file="$home/munged.pid" --log-file="$home/munged.log" --seed-file="$home/munge.seed" 2>/dev/null &
pids+=($!)

# The controller keeps an account of processors, not of their use: tasks may outnumber them.
cat >"$home/slurm.conf" <<EOF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=30
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$tasks State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
export SLURM_CONF=$home/slurm.conf
slurmctld -D -f "$SLURM_CONF" 2>/dev/null &
pids+=($!)
slurmd -D -f "$SLURM_CONF" 2>/dev/null &
pids+=($!)

for _ in $(seq 150); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && ready=1 && break
    sleep 0.2
done
[ "${ready:-}" ] || { echo "slurm did not start:" >&2; tail -n 20 "$home"/*.log >&2; exit 1; }
"$@"
