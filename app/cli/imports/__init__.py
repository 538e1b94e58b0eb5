"""`cherry import`: data, jobs and evals of other services."""
