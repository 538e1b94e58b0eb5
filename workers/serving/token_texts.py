"""The text of each token, so that those of a completion, joined, are its text to the byte.

A tokenizer decodes whole texts: the first space goes, bytes become characters, or U+FFFD where they are none,
and what a token is may depend on those beside it. How a tokenizer does it is found out by trying: tokens
spell bytes (`_Spelled`), or texts that can be read in windows (`_Windowed`), or the text is read at its end
(`_Whole`). Each gives what decoding all tokens at once gives, which is what training's graders saw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from workers.serving.token_bytes import (
    BROKEN,
    REPLACED,
    fallback_byte,
    is_text,
    name_of,
    shares,
    spelled,
)

TRIAL_ROWS, TRIAL_TOKENS = 40, 10
"""Rows of random tokens that a way of reading must get right. Chosen: it takes some 20 ms for a model."""
SMALL_IDS = 600
"""Ids below this are tried more often: bytes and special tokens mostly come first. Chosen, not measured."""
TELLING = ("<0x41>", "<0x20>", "<0xC3>", "<0xA9>", "<0xFF>", "▁", "▁a", "▁the", "a", "Ġ", "Ġa", "Ċ", "Ã", "©")
"""Names that show how a tokenizer decodes, where it has them: bytes, spaces, halves of a character."""
ANCHORS, SPOILERS = 4, 2
"""Tokens beside which a token must have the same text to be plain. Chosen, not measured."""
Decode = Callable[[Sequence[int]], str]


class TokenStream(Protocol):
    """Reads a completion token by token. The shares that it returns follow the tokens, one for each."""

    def push(self, token: int) -> list[bytes]:
        """Returns the shares that are settled by now: of this token and of those that waited, or none."""

    def finish(self) -> list[bytes]:
        """Returns the shares of the tokens that still wait."""


class TokenTexts:
    """Knows the texts of one tokenizer's tokens. One thread at a time may use it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._spelling = _Spelling(tokenizer, self.decode)
        self._windows = _Windows(tokenizer, self.decode)
        self._make = self._choose()
        self._alternatives: dict[tuple[int, bool], tuple[str, bytes]] = {}

    @property
    def are_read_at_the_end(self) -> bool:
        """Whether texts of this tokenizer can be told only when they are complete."""
        return self._make == self._whole

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns a text as training shows it to graders, special tokens and all."""
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def stream(self, prompt: Sequence[int] = ()) -> TokenStream:
        """Returns a reader of one completion: of its own text, or of one that continues a prompt's."""
        return self._make(prompt)

    def shares(self, tokens: Sequence[int], prompt: Sequence[int] = ()) -> list[bytes]:
        """Returns the shares that tokens have of their text."""
        stream = self.stream(prompt)
        settled = [share for token in tokens for share in stream.push(token)]
        return settled + stream.finish()

    def name(self, token: int, share: bytes) -> str:
        """Returns what a token is called: its text, or its bytes where they are no text of their own."""
        data = share
        if not share or REPLACED in share:  # what is no character may be told with another token
            raw = self._spelling.raw(token)
            data = share if is_text(raw) else raw
        if is_text(data):
            return data.decode()
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def alternative(self, token: int, *, is_first: bool) -> tuple[str, bytes]:
        """Returns name and bytes of a token that might have been drawn instead."""
        found = self._alternatives.get((token, is_first))
        if found is None:
            share = self._share_alone(token, is_first=is_first)
            found = self._alternatives[token, is_first] = (self.name(token, share), share)
        return found

    def _share_alone(self, token: int, *, is_first: bool) -> bytes:
        raw = self._spelling.raw(token)
        if self._make == self._spelled or not is_text(raw):
            return raw
        return (self.decode([token]) if is_first else self._windows.beside(token)).encode()

    def _choose(self) -> Callable[[Sequence[int]], TokenStream]:
        rows = _trial_rows(self._tokenizer)
        for make in (self._spelled, self._windowed):
            self._make = make
            if all(self._is_right(row) for row in rows):
                return make
        return self._whole

    def _is_right(self, tokens: Sequence[int]) -> bool:
        found = self.shares(tokens)
        return len(found) == len(tokens) and b"".join(found) == self.decode(tokens).encode()

    def _spelled(self, _prompt: Sequence[int]) -> TokenStream:
        return _Spelled(self._spelling)

    def _windowed(self, prompt: Sequence[int]) -> TokenStream:
        return _Windowed(self._windows, prompt)

    def _whole(self, prompt: Sequence[int]) -> TokenStream:
        return _Whole(self._windows, prompt)


def _trial_rows(tokenizer: Any) -> list[list[int]]:
    """Returns rows of ids, the same in each process; some ids have no name."""
    chance = random.Random(0)
    vocabulary = tokenizer.get_vocab()
    size = len(tokenizer)
    telling = [vocabulary[name] for name in TELLING if name in vocabulary]
    kinds = (range(size + 2), range(min(size, SMALL_IDS)), telling or range(size))
    return [
        [chance.choice(kinds[max(0, row % 4 - 1)]) for _ in range(TRIAL_TOKENS)] for row in range(TRIAL_ROWS)
    ]


class _Spelling:
    """Knows the bytes that tokens spell by their names."""

    def __init__(self, tokenizer: Any, decode: Decode) -> None:
        self._tokenizer = tokenizer
        self._decode = decode
        self._raw: dict[int, bytes] = {}
        self._is_text: dict[int, bool] = {}

    def raw(self, token: int) -> bytes:
        """Returns a token's bytes: those of its name if decoding agrees, else those of its text alone."""
        if token not in self._raw:
            self._raw[token] = raw = self._find(token)
            self._is_text[token] = is_text(raw)
        return self._raw[token]

    def text_or_none(self, token: int) -> bytes | None:
        """Returns a token's bytes if they are whole characters."""
        raw = self.raw(token)
        return raw if self._is_text[token] else None

    def _find(self, token: int) -> bytes:
        name = name_of(self._tokenizer, token)
        text = self._decode([token])
        if name is None:
            return text.encode()
        for raw in (spelled(name), fallback_byte(name)):
            if raw is not None and raw.decode("utf-8", "replace") == text:
                return raw
        return text.encode()


class _Spelled:
    """Reads tokens that are bytes, whatever stands beside them."""

    def __init__(self, spelling: _Spelling) -> None:
        self._spelling = spelling
        self._waiting: list[bytes] = []

    def push(self, token: int) -> list[bytes]:
        whole = self._spelling.text_or_none(token)
        if whole is not None and not self._waiting:
            return [whole]
        self._waiting.append(self._spelling.raw(token))
        settled = shares(self._waiting, is_end=False)
        del self._waiting[: len(settled)]
        return settled

    def finish(self) -> list[bytes]:
        settled, self._waiting = shares(self._waiting, is_end=True), []
        return settled


class _Windows:
    """Knows what tokens add to the text of a window that begins with a token of visible text."""

    def __init__(self, tokenizer: Any, decode: Decode) -> None:
        self._tokenizer = tokenizer
        self.decode = decode
        self._parts: dict[int, bool] = {}
        self._solid: dict[int, bool] = {}
        self._plain: dict[int, bytes | None] = {}
        self._beside: list[list[int]] | None = None

    def is_part(self, token: int) -> bool:
        """Says whether a token may be a part of a character, so that its text follows from its neighbours."""
        if token not in self._parts:
            name = name_of(self._tokenizer, token)
            is_byte = name is not None and fallback_byte(name) is not None
            self._parts[token] = is_byte or BROKEN in self.decode([token, token])
        return self._parts[token]

    def is_solid(self, token: int) -> bool:
        """Says whether a token has visible text of its own: behind it a text may be read by itself."""
        if token not in self._solid:
            text = self.decode([token, token])
            self._solid[token] = bool(text.strip()) and not self.is_part(token)
        return self._solid[token]

    def is_silent(self, token: int) -> bool:
        """Says whether a token has no text, so that those beside it may still be parts of one character."""
        return not self.decode([token, token])

    def plain(self, token: int) -> bytes | None:
        """Returns what a token adds to every text; None where that follows from what it is added to."""
        if token not in self._plain:
            added = {self._added(before, token) for before in self._befores()}
            only = added.pop() if len(added) == 1 else None
            self._plain[token] = None if only is None else only.encode()
        return self._plain[token]

    def beside(self, token: int) -> str:
        """Returns what a token adds to some other token's text."""
        befores = self._befores()
        return (self._added(befores[0], token) if befores else None) or self.decode([token])

    def tail(self, tokens: Sequence[int]) -> list[int]:
        """Returns the tokens from the last solid one on, or all."""
        for start in range(len(tokens) - 1, -1, -1):
            if self.is_solid(tokens[start]):
                return list(tokens[start:])
        return list(tokens)

    def shares(self, before: Sequence[int], tokens: Sequence[int]) -> list[bytes]:
        """Returns what each of the tokens adds to the text before them.

        What cannot be told apart is the last one's.
        """
        start, whole = self.decode(before), self.decode([*before, *tokens])
        text = whole[len(start) :]
        raw = [self._raw(token) for token in tokens]
        for found in (raw, shares(raw, is_end=True)):
            if b"".join(found) == text.encode():
                return found
        replaced = [b"" if self.is_silent(token) else REPLACED for token in tokens]
        if b"".join(replaced) == text.encode():
            return replaced
        texts = [self.decode([*before, *tokens[:n]]) for n in range(len(tokens))] + [whole]
        if all(after.startswith(one) for one, after in pairwise(texts)):
            return [after[len(one) :].encode() for one, after in pairwise(texts)]
        return [b""] * (len(tokens) - 1) + [text.encode()]

    def _raw(self, token: int) -> bytes:
        name = name_of(self._tokenizer, token)
        if name is None:
            return b""
        return fallback_byte(name) or spelled(name)

    def _added(self, before: Sequence[int], token: int) -> str | None:
        start, text = self.decode(before), self.decode([*before, token])
        return text[len(start) :] if text.startswith(start) else None

    def _befores(self) -> list[list[int]]:
        """Returns beginnings of texts to try tokens behind: visible ones, also with half a character."""
        if self._beside is None:
            ids = random.Random(1).choices(range(len(self._tokenizer)), k=SMALL_IDS)
            solid = [token for token in ids if self.is_solid(token)][:ANCHORS]
            small = range(min(len(self._tokenizer), SMALL_IDS))
            parts = [token for token in small if self.is_part(token)]
            spoilers = parts[-1:] + parts[:: max(1, len(parts) // SPOILERS)][:SPOILERS]
            spoilt = [[solid[0], part] for part in spoilers] if solid else []
            self._beside = [[token] for token in solid] + spoilt
        return self._beside


class _Windowed:
    """Reads tokens that have texts; parts of characters wait for the next token that is none."""

    def __init__(self, windows: _Windows, prompt: Sequence[int]) -> None:
        self._windows = windows
        self._window = windows.tail(prompt)
        self._is_anchored = bool(self._window) and windows.is_solid(self._window[0])
        self._waiting: list[int] = []

    def push(self, token: int) -> list[bytes]:
        if self._windows.is_part(token) or (self._waiting and self._windows.is_silent(token)):
            self._waiting.append(token)
            return []
        plain = self._windows.plain(token) if self._is_anchored and not self._waiting else None
        settled = self._read() + self._last(token) if plain is None else [plain]
        if self._windows.is_solid(token):
            self._window, self._is_anchored = [token], True
        else:
            self._window.append(token)
        return settled

    def finish(self) -> list[bytes]:
        return self._read()

    def _read(self) -> list[bytes]:
        """Returns the shares of what waits, and takes it into the window."""
        if not self._waiting:
            return []
        settled = self._windows.shares(self._window, self._waiting)
        self._window += self._waiting
        self._waiting = []
        return settled

    def _last(self, token: int) -> list[bytes]:
        decode = self._windows.decode
        return [decode([*self._window, token])[len(decode(self._window)) :].encode()]


class _Whole:
    """Reads a text when it is complete."""

    def __init__(self, windows: _Windows, prompt: Sequence[int]) -> None:
        self._windows = windows
        self._prompt = list(prompt)
        self._tokens: list[int] = []

    def push(self, token: int) -> list[bytes]:
        self._tokens.append(token)
        return []

    def finish(self) -> list[bytes]:
        tokens, self._tokens = self._tokens, []
        return self._windows.shares(self._prompt, tokens) if tokens else []
