"""Reads turns of a model whose template tells of neither thoughts nor calls: all of a turn is its answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from workers.training.base.parts import Parts


class PlainReader:
    """Takes no turn apart. Threads may share it."""

    def __init__(self, tokenizer: Any, end_ids: Collection[int]) -> None:
        """`end_ids` end a turn, and are no part of its answer."""
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)

    def read(
        self,
        prompt_ids: Sequence[int],  # noqa: ARG002
        tokens: Sequence[int],
        tools: Sequence[Any] | None = None,  # noqa: ARG002
    ) -> Parts:
        """Returns all of the turn as its answer."""
        own = tokens[:-1] if tokens and tokens[-1] in self._end_ids else tokens
        return Parts(answer=self._tokenizer.decode(list(own), clean_up_tokenization_spaces=False))
