# base: 2 nodes, 16 GPUs

# the script of the job
mkdir -p launched
cat > launched/base.sbatch <<'END'
#!/bin/bash
#SBATCH --job-name=base
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --output=launched/base_%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@600
# JAX gives each process the GPU of its number on the node. One without a GPU ends with an error.
export JAX_PLATFORMS=cuda,cpu PYTHONUNBUFFERED=1
export SWITCH_JAX_ENDED_WITH="$PWD/launched/base_$SLURM_JOB_ID.code_"
for ((restart = 0; ; restart++)); do
  rm -f "$SWITCH_JAX_ENDED_WITH"*
  srun --label --cpu-bind=none --kill-on-bad-exit=0 --wait=180 \
    '/shared/a venv/bin/python' -m switch_jax train --multihost \
    --gin_file=models/switch_base_8.gin \
    --gin_file=runs/pretrain.gin \
    --gin.MODEL_DIR='gs://my-bucket/runs/a b' \
    --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption \
    --gin.BATCH_SIZE=256 \
    --gin.MESH_DATA=2 \
    --gin.MESH_EXPERT=8 \
    --gin.DATA_STREAMS=16 \
    --gin.GROUP_SIZE=4096 \
    --gin.DECODER_GROUP_SIZE=1024
  code=$?  # the highest of the processes, as of one that was killed after others had stopped
  # But a mistake counts, and then one that a signal has stopped: each process that ended by itself
  # has made a file with its code in the name.
  for own in 2 3 130 75; do
    if [ -e "$SWITCH_JAX_ENDED_WITH$own" ]; then
      code=$own
      break
    fi
  done
  case $code in
    0 | 2 | 3 | 130) break ;;
    75 | 143)  # a job that Slurm preempts goes back into the queue by itself
      if scontrol show job "$SLURM_JOB_ID" | grep --quiet 'PreemptTime=[0-9]'; then
        exit 75
      fi
      scontrol requeue "$SLURM_JOB_ID" && exit
      break
      ;;
  esac
  if ((restart == 5)); then break; fi
  echo "switch_jax launch: crashed (exit code $code): starting again, at most 5 times"
done
echo "switch_jax launch: job $SLURM_JOB_ID: exit code $code"
exit "$code"
END

# prints the job if it is in the queue; repeated every 10 s
squeue --me --name=base --noheader --format='%i %T %r'

# only if there is no such job: puts it into the queue
sbatch --parsable --partition=a100,h100 --comment='it'"'"'s me' launched/base.sbatch

# prints the output of all processes; JOB_ID is the job's number
tail --lines=+1 --follow=name --retry launched/base_JOB_ID.log

# later, run it yourself: ends the job with a checkpoint
scancel --me --name=base --signal=INT

# later, run it yourself: takes the job out of the queue, or ends it at once
scancel --me --name=base
