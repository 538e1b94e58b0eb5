"""Tools that a job's policy may call while it is trained."""
