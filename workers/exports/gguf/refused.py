"""The error of everything here that an owner can be told."""


class GgufRefused(Exception):
    """Says why a checkpoint cannot be a GGUF file that answers as it was trained, to its owner."""
