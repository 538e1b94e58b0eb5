"""The sampler: base and tuned models behind an internal endpoint in OpenAI's shape.

It samples with the engine that trains (workers/training/sampling/rollout.py), so a model answers here as it
did there. Nothing of torch is loaded before the first request needs a model.
"""
