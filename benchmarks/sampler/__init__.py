"""The sampler beside transformers and llama.cpp: the same tokens asked of each in turns, in one run.

`python -m benchmarks.sampler --help`. Words: a *side* is one program that samples; a *round* asks every side
once for the same number of completions of the same prompts.
"""

# First, because it switches the libraries' telemetry and network off before they are imported.
import workers.training  # noqa: F401
