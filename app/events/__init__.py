"""The numbered log of a job, and its per-step metrics."""
