"""Does a few dozen rows for hundreds of epochs do any harm? `make bench-long-runs`.

Each pair is one job of 20 epochs and one of 200, with the same rows and seed, without early stopping. What
they deliver is judged as in `benchmarks/stability`: on rows that neither has seen, with the same random
numbers, and on text of no job.
"""
