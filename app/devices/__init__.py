"""The GPUs, and seats on the CPU, of one machine: which there are, and who has which."""
