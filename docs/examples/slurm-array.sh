#!/bin/sh
# A build in 8 parts as a Slurm job array, then one report of all:
#
#     build=$(sbatch --parsable slurm-array.sh models.yaml)
#     sbatch --dependency=afterany:$build --wrap "reportgen merge reports/part-* --output reports/all"
#
# All nodes share the folder, the environment and the cache. The merged report has what failed in a
# part; a part that wrote no report is named.
#SBATCH --job-name=reportgen
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=02:00:00
part=$SLURM_ARRAY_TASK_ID
exec reportgen build "$1" --shard "$part/8" --jobs 2 --format json --output "reports/part-$part"
