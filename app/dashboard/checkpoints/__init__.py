"""The checkpoints of a job: what they measured, how to take them home, and a box to try them in."""
