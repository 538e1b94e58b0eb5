"""Text of which it is not clear yet what it is, with the tokens that it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workers.serving.completion_text import Piece

SPACE = b" \t\r\n"


class Unsettled:
    """Holds the newest pieces of a completion. Places are bytes of their text."""

    def __init__(self) -> None:
        self.text = b""
        self._pieces: list[Piece] = []

    def add(self, pieces: Sequence[Piece]) -> None:
        """Takes the next pieces."""
        self._pieces += pieces
        self.text += b"".join(piece.share for piece in pieces)

    def take(self, size: int) -> list[Piece]:
        """Takes so much text off the front. A token that is in both halves is in both; one without text
        goes with what stands before it."""
        taken: list[Piece] = []
        left = size
        while self._pieces and len(self._pieces[0].share) <= left:
            left -= len(self._pieces[0].share)
            taken.append(self._pieces.pop(0))
        if left:
            first = self._pieces[0]
            taken.append(first._replace(share=first.share[:left]))
            self._pieces[0] = first._replace(share=first.share[left:])
        self.text = self.text[size:]
        return taken

    def strip_left(self) -> None:
        """Drops white space at the front."""
        if blank := len(self.text) - len(self.text.lstrip(SPACE)):
            self.take(blank)

    def strip_right(self) -> None:
        """Drops white space at the end."""
        kept = self.take(len(self.text.rstrip(SPACE)))
        self.text, self._pieces = b"", []
        self.add(kept)

    def certain(self, marks: Iterable[bytes], *, holds_blank: bool) -> int:
        """Returns how much of the text can be told: none of these marks may begin in it, nor white space at
        its end if that is not told where nothing follows it."""
        most = len(self.text) - max((_overlap(self.text, mark) for mark in marks), default=0)
        return len(self.text[:most].rstrip(SPACE)) if holds_blank else most


def _overlap(text: bytes, mark: bytes) -> int:
    """Returns the length of the longest ending of a text that a mark begins with and goes on."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)
