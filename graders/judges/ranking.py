"""Says in which calls and orders answers are shown to a judge, and brings their scores to one scale.

Chance is a hash: the order follows from a seed and from the answers, whatever order they came in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from statistics import fmean
from typing import NamedTuple

ANCHORS_SHARE, LEAST_ANCHORS = 4, 2
"""One answer of four in a call stands in every other call too, at least two. Chosen by simulation
(tests/graders/judges/test_ranking.py): one anchor carries the whole noise of its score into every other
answer, and each anchor more takes the place of an answer."""


class Split(NamedTuple):
    """Holds what is asked about a group: in `calls` the numbers of answers as they are shown, in `anchors`
    those that stand in each call."""

    calls: list[list[int]]
    anchors: list[int]


def anchors_of(most: int) -> int:
    """Returns how many answers of a split group stand in each call of at most `most` answers."""
    return max(LEAST_ANCHORS, most // ANCHORS_SHARE)


def calls_for(answers: int, most: int) -> int:
    """Returns how many calls show all answers once, at most `most` in each."""
    if answers <= most:
        return 1
    anchors = anchors_of(most)
    return math.ceil((answers - anchors) / (most - anchors))


def split(texts: Sequence[str], seed: str, most: int) -> Split:
    """Returns the calls that show all texts, of like sizes, each in an order of its own."""
    order = _shuffled(range(len(texts)), texts, seed)
    n_calls = calls_for(len(texts), most)
    if n_calls == 1:
        return Split([order], [])
    anchors, others = order[: anchors_of(most)], order[anchors_of(most) :]
    calls = [[*anchors, *others[call::n_calls]] for call in range(n_calls)]
    return Split([_shuffled(call, texts, f"{seed}/{n}") for n, call in enumerate(calls)], anchors)


def permuted(call: Sequence[int], permutation: int, of: int) -> list[int]:
    """Returns a call's answers in another order: moved on, so that each stands in places far apart.

    With as many permutations as answers each of them stands once in every place.
    """
    start = permutation * len(call) // of
    return [*call[start:], *call[:start]]


def on_one_scale(calls: Sequence[Mapping[int, float]], anchors: Sequence[int]) -> dict[int, float]:
    """Returns a score for each answer, out of the scores that calls gave.

    The scores of a call are moved up or down, all by as much, so that its anchors have on average what they
    have over all calls; what leaves 0 to 1 thereby becomes 0 or 1. An anchor's score is the mean of its
    scores so moved. Without an anchor that has a score in each call there is no common scale, and no score.
    """
    if len(calls) == 1:
        return dict(calls[0])
    common = [anchor for anchor in anchors if all(anchor in scores for scores in calls)]
    if not common:
        return {}
    levels = [fmean(scores[anchor] for anchor in common) for scores in calls]
    moved: dict[int, list[float]] = {}
    for scores, level in zip(calls, levels, strict=True):
        for answer, score in scores.items():
            moved.setdefault(answer, []).append(score + fmean(levels) - level)
    return {answer: min(max(fmean(found), 0.0), 1.0) for answer, found in moved.items()}


def _shuffled(numbers: Sequence[int], texts: Sequence[str], seed: str) -> list[int]:
    return sorted(numbers, key=lambda number: digest(seed, texts[number]))


def digest(*parts: str) -> bytes:
    """Returns a hash of texts, the same in every process."""
    found = blake2b(digest_size=16)
    for part in parts:
        text = part.encode("utf-8", "surrogatepass")
        found.update(len(text).to_bytes(8, "big") + text)
    return found.digest()
