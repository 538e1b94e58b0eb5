"""The completions of a job, each with its grade."""
