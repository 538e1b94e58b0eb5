"""Computes METEOR (Lavie and Agarwal 2007) with its exact and stem stages, to nltk's values.

nltk aligns each word, from the end of the text backwards, with the last equal one of the reference that is
still free; so does this, in linear instead of quadratic time. No synonym stage: WordNet is a download.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5


class Match(NamedTuple):
    """Pairs a word's position in the text with the position in the reference it is aligned with."""

    text: int
    reference: int


def meteor(text: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]) -> float:
    """Returns the score, 0 to 1.

    It is the recall-weighted F-mean of matched words, less a penalty for being matched in many pieces.
    """
    matches = align(text, reference, stem)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(text), len(matches) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * math.pow(chunks(matches) / len(matches), BETA)
    return (1 - penalty) * mean


def align(text: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]) -> list[Match]:
    """Matches equal words first (case ignored), then equal stems among the rest; each word at most once."""
    left = dict(enumerate(word.lower() for word in text))
    right = dict(enumerate(word.lower() for word in reference))
    exact = _last_first(left, right)
    for found in exact:
        del left[found.text], right[found.reference]
    stems = _last_first(
        {at: stem(word) for at, word in left.items()}, {at: stem(word) for at, word in right.items()}
    )
    return sorted(exact + stems)


def chunks(matches: Sequence[Match]) -> int:
    """Counts the runs of matches that are adjacent in both texts; `matches` is in the order of the text."""
    follows = (
        after.text == before.text + 1 and after.reference == before.reference + 1
        for before, after in pairwise(matches)
    )
    return len(matches) - sum(follows)


def _last_first(left: dict[int, str], right: dict[int, str]) -> list[Match]:
    """Matches each word of `left`, from the end, with the last equal one of `right` that is free.

    Both are words by position.
    """
    free: dict[str, list[int]] = defaultdict(list)
    for at, word in right.items():
        free[word].append(at)
    return [Match(at, free[word].pop()) for at, word in reversed(left.items()) if free.get(word)]
