"""In which tokens a short text of a template can be written, from any place in it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TokenPaths:
    """Knows the steps through a text: which token leads from which place to which other.

    Attributes:
        length: of the text, in characters: the last place.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.length = len(text)
        self._steps: list[dict[int, int]] = [{} for _ in text]
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                if (token := _token_of(tokenizer, text[start:end])) is not None:
                    self._steps[start][token] = end

    def steps(self, place: int) -> Mapping[int, int]:
        """Returns the tokens that may come at a place, and where each leads to."""
        return self._steps[place] if place < self.length else {}


def _token_of(tokenizer: Any, text: str) -> int | None:
    """Returns the one token that is this text and no more; None where there is none."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        return None
    written = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return ids[0] if written == text else None
