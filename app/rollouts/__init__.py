"""Per-epoch grades: every completion a job sampled, with its grade."""
