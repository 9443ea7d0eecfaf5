#!/bin/bash
# A run on two machines of four GPUs that SLURM may interrupt: sbatch docs/slurm.sh
# Two minutes before its time is up each process gets SIGUSR1: the step at hand ends, last.ckpt is written, the job is put
# back into the queue, and goes on from there. The folder it is started from must be seen by both machines.
#SBATCH --job-name=gan
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

srun python -m lit_gans fit --resume \
    --config configs/dcgan/celeba.yaml \
    --trainer.accelerator gpu --trainer.num_nodes 2 --trainer.devices 4 \
    --trainer.strategy gan_ddp --trainer.precision bf16-mixed
