"""METEOR (Lavie and Agarwal 2007) with its exact and stem stages.

Departures: no synonym stage (WordNet is a download), and of the alignments with the most matches, one with
few chunks is found greedily, longest run first, because finding the fewest is NP-hard.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5

MAX_PAIRS = 100_000
"""Equal word pairs up to which runs are searched; beyond, words are matched from the end backwards."""


class Match(NamedTuple):
    """Position in the text and the position in the reference it is aligned with."""

    text: int
    reference: int


def meteor(text: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]) -> float:
    """0..1: recall-weighted F-mean of matched words, less a penalty for being matched in many pieces."""
    matches = align(text, reference, stem)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(text), len(matches) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    penalty = GAMMA * math.pow(chunks(matches) / len(matches), BETA)
    return (1 - penalty) * mean


def align(text: Sequence[str], reference: Sequence[str], stem: Callable[[str], str]) -> list[Match]:
    """Match equal words first (case ignored), then equal stems among the rest; each word at most once."""
    words, wanted = [word.lower() for word in text], [word.lower() for word in reference]
    candidates = [_align_with(match, words, wanted, stem) for match in (_longest_runs_first, _last_first)]
    return min(candidates, key=chunks)


def chunks(matches: Sequence[Match]) -> int:
    """Runs of matches that are adjacent in both texts; `matches` is in the order of the text."""
    follows = (
        after.text == before.text + 1 and after.reference == before.reference + 1
        for before, after in pairwise(matches)
    )
    return len(matches) - sum(follows)


_Words = dict[int, str]
"""The words still unmatched, by position."""


def _align_with(
    match: Callable[[_Words, _Words], list[Match]],
    words: Sequence[str],
    wanted: Sequence[str],
    stem: Callable[[str], str],
) -> list[Match]:
    left, right = dict(enumerate(words)), dict(enumerate(wanted))
    exact = match(left, right)
    for found in exact:
        del left[found.text], right[found.reference]
    stems = match(
        {at: stem(word) for at, word in left.items()}, {at: stem(word) for at, word in right.items()}
    )
    return sorted(exact + stems)


def _last_first(left: _Words, right: _Words) -> list[Match]:
    """Each word, from the end, with the last equal one still free: what nltk does. Linear time."""
    free: dict[str, list[int]] = defaultdict(list)
    for at, word in right.items():
        free[word].append(at)
    return [Match(at, free[word].pop()) for at, word in reversed(left.items()) if free.get(word)]


def _longest_runs_first(left: _Words, right: _Words) -> list[Match]:
    """Take the longest run of equal words, then the longest among what is left, until nothing matches."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, word in right.items():
        places[word].append(at)
    pairs = sum(len(places.get(word, ())) for word in left.values())
    if pairs > MAX_PAIRS:
        return _last_first(left, right)
    queue = _runs(left, places)
    heapq.heapify(queue)
    taken_left: set[int] = set()
    taken_right: set[int] = set()
    matches: list[Match] = []
    while queue:
        length, _, i, j = heapq.heappop(queue)
        offsets = [k for k in range(-length) if i + k not in taken_left and j + k not in taken_right]
        if len(offsets) < -length:
            for start, size in _pieces(offsets):
                heapq.heappush(queue, (-size, abs(i - j), i + start, j + start))
            continue
        matches += [Match(i + k, j + k) for k in offsets]
        taken_left.update(range(i, i - length))
        taken_right.update(range(j, j - length))
    return matches


def _runs(left: _Words, places: dict[str, list[int]]) -> list[tuple[int, int, int, int]]:
    """Every maximal run of equal words as (-length, distance from the diagonal, start, start)."""
    ending: dict[tuple[int, int], int] = {}
    for i, word in left.items():
        for j in places.get(word, ()):
            ending[i, j] = ending.get((i - 1, j - 1), 0) + 1
    return [
        (-length, abs(i - j), i - length + 1, j - length + 1)
        for (i, j), length in ending.items()
        if (i + 1, j + 1) not in ending
    ]


def _pieces(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, how many)."""
    pieces: list[tuple[int, int]] = []
    for offset in offsets:
        if pieces and sum(pieces[-1]) == offset:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
        else:
            pieces.append((offset, 1))
    return pieces
