"""Compares two completions word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

MOST_WORDS = 1_500
"""Words of each text that are compared: a hostile pair of texts takes their number squared, and more."""
LONGEST = 100_000
_WORD = re.compile(r"\s*\S+|\s+$")

Kind = Literal["same", "removed", "added"]


class Piece(NamedTuple):
    """Words that stand together in one text or in both."""

    kind: Kind
    text: str


class Difference(NamedTuple):
    """How one text becomes another. `is_cut` says that only the beginning was compared."""

    pieces: list[Piece]
    is_cut: bool
    share_same: float
    """Of the words of both, 0 to 1."""


def difference(before: str, after: str) -> Difference:
    """Returns which words of a text were removed and added on the way to another."""
    old, new = (_words(text) for text in (before, after))
    is_cut = max(len(old), len(new)) > MOST_WORDS or max(len(before), len(after)) > LONGEST
    old, new = old[:MOST_WORDS], new[:MOST_WORDS]
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    pieces = [Piece("same", "".join(old[:head]))]
    pieces += _between(old[head : len(old) - tail], new[head : len(new) - tail])
    pieces.append(Piece("same", "".join(old[len(old) - tail :])))
    pieces = [piece for piece in pieces if piece.text]
    shown = [Piece(pieces[0].kind, pieces[0].text.removeprefix(" ")), *pieces[1:]] if pieces else []
    same = sum(len(_WORD.findall(piece.text)) for piece in shown if piece.kind == "same")
    return Difference(shown, is_cut, 2 * same / (len(old) + len(new)) if old or new else 1.0)


def _words(text: str) -> list[str]:
    """Returns the words of a text, each with the white space before it, of which the first has some too."""
    return _WORD.findall(f" {text[:LONGEST]}") if text else []


def _between(old: Sequence[str], new: Sequence[str]) -> list[Piece]:
    """Compares what is left once the ends that agree are off. Frequent words of long texts are no anchors:
    that bounds the time."""
    found: list[Piece] = []
    one, other = ([word.strip() for word in words] for words in (old, new))
    for kind, i, j, k, m in SequenceMatcher(None, one, other).get_opcodes():
        if kind == "equal":
            found.append(Piece("same", "".join(new[k:m])))
            continue
        found += [Piece("removed", "".join(old[i:j])), Piece("added", "".join(new[k:m]))]
    return found


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """Counts the words with which both begin."""
    pairs = zip(old, new, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))
