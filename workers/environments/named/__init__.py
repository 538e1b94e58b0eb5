"""Environments that an operator has installed: foreign code, in processes of its own that see no secret."""
