"""The engine beside stock TRL: equal work in turns, in one process, timed phase by phase.

`python -m benchmarks.engine --help`. Words: a *side* is "ours" or "stock"; a *pair* is one step of each on
the same prompts. Every figure is per sampled token: the sides draw different random numbers, so their
completions differ in length.
"""

# First, because it switches the libraries' telemetry and network off before they are imported.
import workers.training  # noqa: F401
