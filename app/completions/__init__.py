"""Text completions: a model goes on from a text or tokens, without a chat template."""
