"""What a project keeps beside its jobs, such as runs of evals."""
