"""`cherry evals`: evals and their runs, through the API."""
