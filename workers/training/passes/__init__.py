"""The training forward: packed prompts and completions in, log-probabilities of tokens out."""
