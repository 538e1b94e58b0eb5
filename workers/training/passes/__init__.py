"""The training forward: packed prompts and completions go in, log-probabilities come out."""
