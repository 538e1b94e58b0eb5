"""In which tokens a short text of a template can be written, from any place in it on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST = 24
"""Characters of the longest token that is looked for, but for those that were added to the vocabulary. Longer
than the names of tags; chosen, not measured.
"""


class TokenPaths:
    """Knows the steps through a text: which token leads from which place to which other.

    A token that was added to the vocabulary, such as a special one, is written whole: spelled out in letters
    it is another text to the model.

    Attributes:
        length: of the text, in characters: the last place.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.length = len(text)
        self._steps: list[dict[int, int]] = [{} for _ in text]
        added = _added(tokenizer, text)
        inside = {place for start, end in added for place in range(start + 1, end)}
        places = [place for place in range(len(text) + 1) if place not in inside]
        for start in places:
            for end in places:
                if start < end and (end - start <= LONGEST or (start, end) in added):
                    self._step(tokenizer, text, start, end)

    def _step(self, tokenizer: Any, text: str, start: int, end: int) -> None:
        token = _token_of(tokenizer, text[start:end])
        if token is not None:
            self._steps[start][token] = end

    def steps(self, place: int) -> Mapping[int, int]:
        """Returns the tokens that may come at a place, and where each leads to."""
        return self._steps[place] if place < self.length else {}


def _added(tokenizer: Any, text: str) -> set[tuple[int, int]]:
    """Returns the places of added tokens in a text."""
    tokens = sorted(filter(None, tokenizer.added_tokens_encoder), key=len, reverse=True)
    pattern = "|".join(map(re.escape, tokens))
    return {found.span() for found in re.finditer(pattern, text)} if pattern else set()


def _token_of(tokenizer: Any, text: str) -> int | None:
    """Returns the one token that is this text and no more; None where there is none."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        return None
    written = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return ids[0] if written == text else None
