"""Pages for people: jobs, curves, checkpoints, every completion with its grade. Read-only, no scripts."""
