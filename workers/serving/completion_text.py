"""The text of a completion as its tokens come: what is certain is told; what a stop string cuts is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

from workers.serving.requests import Token
from workers.serving.token_texts import TokenTexts

Finish = Literal["stop", "length", "tool_calls"]


class Piece(NamedTuple):
    """Is a token with its share of the text: the shares of all pieces, joined, are the text.

    Attributes:
        number: counts the completion's tokens from 0.
    """

    number: int
    token: Token
    share: bytes


class CompletionText:
    """Reads one completion.

    Its text is what decoding all its tokens gives, without an end token, up to the first stop string. A text
    that may begin a stop string waits until that is clear, as does a part of a character.
    """

    def __init__(
        self, texts: TokenTexts, end_ids: frozenset[int], stops: Sequence[str], prompt: Sequence[int] = ()
    ) -> None:
        """Begins a completion; with a `prompt`, one whose text goes on where the prompt's ends."""
        self._stream = texts.stream(prompt)
        self._end_ids = end_ids
        self._stops = tuple(stops)
        self._unread: deque[tuple[int, Token]] = deque()
        """Tokens without a share yet."""
        self._held: list[list[Piece]] = []
        """Pieces whose text may begin a stop string, in groups of whole characters."""
        self._held_text = ""
        self._ready: list[Piece] = []
        self.tokens = 0
        """How many tokens were sampled, those that are no text too."""
        self.thought_tokens = 0
        """It is all answer here."""
        self.finish: Finish | None = None

    def push(self, token: Token) -> bool:
        """Takes the next token; says whether the text has ended. What comes after that is left out."""
        if self.finish is not None:
            return True
        number = self.tokens
        self.tokens += 1
        if token.finish != "stop" or token.token not in self._end_ids:
            self._unread.append((number, token))
            self._settle(self._stream.push(token.token))
        if token.finish is not None and self.finish is None:
            self._end(token.finish)
        return self.finish is not None

    def take(self) -> list[Piece]:
        """Returns the pieces that are certain and were not taken yet; they are whole characters."""
        ready, self._ready = self._ready, []
        return ready

    @property
    def has_ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._ready)

    def _end(self, finish: Literal["stop", "length"]) -> None:
        self._settle(self._stream.finish())
        if self.finish is None:
            self._release(len(self._held))
            self.finish = finish

    def _settle(self, shares: Sequence[bytes]) -> None:
        if not shares:
            return
        group = [Piece(*self._unread.popleft(), share) for share in shares]
        if not self._stops:
            self._ready += group
            return
        self._held.append(group)
        self._held_text += text_of(group)
        first = min((at for stop in self._stops if (at := self._held_text.find(stop)) >= 0), default=None)
        if first is None:
            self._release_certain()
        else:
            self._cut(first)

    def _release_certain(self) -> None:
        """Hands over the groups before the longest ending that a stop string begins with."""
        certain = len(self._held_text) - self._possible_stop()
        groups = end = 0
        for group in self._held:
            end += len(text_of(group))
            if end > certain:
                break
            groups += 1
        self._release(groups)

    def _possible_stop(self) -> int:
        text = self._held_text
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, min(len(stop) - 1, len(text)) + 1)
                if text.endswith(stop[:length])
            ),
            default=0,
        )

    def _release(self, groups: int) -> None:
        for group in self._held[:groups]:
            self._ready += group
            self._held_text = self._held_text[len(text_of(group)) :]
        del self._held[:groups]

    def _cut(self, end: int) -> None:
        """Ends the text before a stop string; of a token that is in both, its share of the text stays."""
        left = len(self._held_text[:end].encode())
        for piece in (piece for group in self._held for piece in group):
            if left <= 0:
                break
            self._ready.append(piece._replace(share=piece.share[:left]))
            left -= len(piece.share)
        self._held, self._held_text = [], ""
        self.finish = "stop"


def text_of(pieces: Sequence[Piece]) -> str:
    """Returns the text of pieces."""
    return b"".join(piece.share for piece in pieces).decode()
