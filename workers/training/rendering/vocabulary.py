"""Which tokens a tokenizer has for its templates, and which ones a model knows."""

from __future__ import annotations

from typing import Any


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Returns the special tokens of a tokenizer by their text."""
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: i for i, token in added if token.special and token.content}


def vocabulary_of(config: Any) -> int | None:
    """Returns how many tokens a model has embedding rows for, by its config; None where it does not say."""
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return size if isinstance(size, int) else None
