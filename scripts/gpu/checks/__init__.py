"""What `gpu_check.sh` runs on a machine with a GPU, a module for each part. Rehearsed on a CPU."""
