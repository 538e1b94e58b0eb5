"""Whether a completion's newest token has completed a stop string, without decoding all of it again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class StopStrings:
    """Knows the stop strings of one call, and which tokens could end one, so that most need no decoding."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], known: dict[int, str] | None = None) -> None:
        """Takes note of the stop strings; `known` is what others of the same tokenizer know of its tokens."""
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._last_characters = {stop[-1] for stop in stops}
        # A character of one byte is seen in whatever else is broken.
        self._are_of_a_byte = all(map(str.isascii, self._last_characters))
        self._tail = max((len(stop.encode()) for stop in stops), default=0)
        self._alone: dict[int, str] = {} if known is None else known

    def __bool__(self) -> bool:
        return bool(self._stops)

    def may_end(self, token: int) -> bool:
        """Says whether a text that this token ends could end in a stop string."""
        text = self._text(token)
        if not self._last_characters.isdisjoint(text):
            return True
        return not self._are_of_a_byte and _BROKEN in text

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Says whether the text of these tokens holds a stop string, if without the last it did not."""
        if not self.may_end(tokens[-1]):
            return False
        start, texts = len(tokens), 0
        # Each token that has text has a byte at least. One more, as some tokenizers drop a text's first
        # space; and on to a token that is text by itself, since half a character spoils what follows it:
        # in some tokenizers all bytes up to the next token that is none.
        while start > 0 and (texts <= self._tail or self._may_be_spoilt(tokens[start])):
            start -= 1
            texts += bool(self._text(tokens[start]))
        return self._first(self.decoded([tokens[start:]])[0]) is not None

    def cut(self, text: str) -> tuple[str, bool]:
        """Returns the text up to its first stop string, and whether it has one."""
        first = self._first(text)
        return (text, False) if first is None else (text[:first], True)

    def decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Returns the texts of completions, with the special tokens among them: what was written is shown."""
        texts: list[str] = self._tokenizer.batch_decode(
            [list(row) for row in rows], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return texts

    def _first(self, text: str) -> int | None:
        return min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=None)

    def _may_be_spoilt(self, token: int) -> bool:
        name = self._tokenizer.convert_ids_to_tokens(token)
        text = self._text(token)
        return not text or _BROKEN in text or (name is not None and _BYTE.fullmatch(name) is not None)

    def _text(self, token: int) -> str:
        """Returns the token's text, twice: alone, some tokenizers would drop its space."""
        if token not in self._alone:
            self._alone[token] = self.decoded([[token, token]])[0]
        return self._alone[token]
