#!/bin/bash
# A run on SLURM: one Ray node per SLURM node, started by srun.
#
#   sbatch cluster/slurm.sh experiments/cityscapes-mobilenet-v3.yaml /shared/runs/cityscapes \
#     --set data.root=/shared/cityscapes --set resources.scoring_workers=2
#
# The same line carries on when the job ran out of time. MADBAL_VENV: where madbal is installed,
# on storage that all nodes see (default: ~/madbal).
#SBATCH --job-name=madbal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch cluster/slurm.sh CONFIG RUN_DIR [options of madbal run]}
run_dir=${2:?usage: sbatch cluster/slurm.sh CONFIG RUN_DIR [options of madbal run]}
shift 2

# shellcheck disable=SC1091
source "${MADBAL_VENV:-$HOME/madbal}/bin/activate"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
if [ ! -s "$HOME/.ray/auth_token" ]; then # one token for all nodes, on the shared home
  mkdir -p "$HOME/.ray"
  python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$HOME/.ray/auth_token"
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # a port of this job's own: nodes may be shared
temporary=/tmp/ray-$SLURM_JOB_ID       # short: socket paths end at 107 bytes

srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$head" \
  ray start --block --head --node-ip-address="$head_ip" --port="$port" \
  --dashboard-host=127.0.0.1 --temp-dir="$temporary" \
  --num-cpus="$SLURM_CPUS_PER_TASK" &
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$node" \
    ray start --block --address="$head_ip:$port" --num-cpus="$SLURM_CPUS_PER_TASK" &
done

for _ in $(seq 60); do # until all nodes have joined; never run on fewer than were paid for
  joined=$(RAY_ADDRESS="$head_ip:$port" python -c \
    'import ray; ray.init(log_to_driver=False); print(sum(n["Alive"] for n in ray.nodes()))' \
    2> /dev/null || echo 0)
  [ "$joined" -ge "${#nodes[@]}" ] && break
  [ "$(jobs -rp | wc -l)" -lt "${#nodes[@]}" ] && break # one has ended: it will not join
  sleep 5
done
if [ "$joined" -lt "${#nodes[@]}" ]; then
  echo "only $joined of ${#nodes[@]} Ray nodes came up; see the srun output above" >&2
  exit 1
fi
madbal run "$config" --run-dir "$run_dir" --address "$head_ip:$port" "$@"
