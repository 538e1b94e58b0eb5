"""What a model's config says of its size, asked of the config's class: it knows old names and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoTokenizer

POSITIONS = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "seq_length")
"""What configs call the positions that a model has; their classes know further names for the first."""
LONGEST_SAID = 1 << 24
"""Tokens above which a tokenizer's limit is none: "no limit" is written as a very large number.
Chosen: far above any context that was published.
"""
WITHOUT_LIMIT = 32_768
"""Tokens of context of a model that names no limit, as recurrent ones do. Chosen: the trained length of such
models is 2,048 to 16,384, and memory is asked for what is used.
"""


class Shape(NamedTuple):
    """Says how wide a model's states are, and how many tokens of prompt and completion it can hold."""

    hidden_size: int
    context: int


def read_shape(folder: Path) -> Shape:
    """Returns the shape of the model in a folder; no code in it is run. Raises whatever transformers does."""
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **offline)
    if (positions := _positions(config)) is not None:
        return Shape(_width(config), positions)
    return shape_of(config, AutoTokenizer.from_pretrained(folder, **offline))


def shape_of(config: Any, tokenizer: Any) -> Shape:
    """Returns the shape that a config means, of its text part if it has several.

    A sliding window is no limit: it bounds what some layers see, not how long a conversation may be. Where
    the config names no positions, the tokenizer's limit holds.
    """
    said = tokenizer.model_max_length
    return Shape(_width(config), _positions(config) or (said if said < LONGEST_SAID else WITHOUT_LIMIT))


def _width(config: Any) -> int:
    return int(config.get_text_config(decoder=True).hidden_size)


def _positions(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)
    return next((int(said) for name in POSITIONS if (said := getattr(text, name, None))), None)
