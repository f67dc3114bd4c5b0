#!/bin/bash
# A run on SLURM with `ray symmetric-run`: shorter than slurm.sh, for nodes of your own.
#
#   sbatch cluster/slurm-symmetric.sh CONFIG RUN_DIR [options of madbal run]
#
# It waits 30 s for the nodes only and ends every Ray process of the user, and it says 0 even when
# Ray did not start: the last line asks the run itself.
#SBATCH --job-name=madbal
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

config=${1:?usage: sbatch cluster/slurm-symmetric.sh CONFIG RUN_DIR [options of madbal run]}
run_dir=${2:?usage: sbatch cluster/slurm-symmetric.sh CONFIG RUN_DIR [options of madbal run]}
shift 2

# shellcheck disable=SC1091
source "${MADBAL_VENV:-$HOME/madbal}/bin/activate"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
if [ ! -s "$HOME/.ray/auth_token" ]; then
  mkdir -p "$HOME/.ray"
  python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$HOME/.ray/auth_token"
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000))
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address="${nodes[0]}:$port" --min-nodes="$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" -- \
  madbal run "$config" --run-dir "$run_dir" --address auto "$@"
madbal status "$run_dir" | grep -q "state    finished"
