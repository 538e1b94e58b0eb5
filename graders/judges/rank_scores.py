"""Turns what a judge said in several calls into one score for each answer, or says why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import NamedTuple, TypeVar

from graders.judges.rank_reply import Said, names_of, read_scores
from graders.judges.ranking import on_one_scale
from graders.services import Reply
from graders.types import Failure, FailureKind, GradeFailed

T = TypeVar("T")

EVEN = 0.5
"""The value of an answer that is as good as what it is compared with."""
NO_SCORE = Failure(FailureKind.MODEL_PARSE, "The judge gave this answer no score, or several.")
NO_SCALE = Failure(
    FailureKind.MODEL_PARSE,
    "The group was split, and no answer that stands in each call has a score in each, so that the calls "
    "cannot be compared.",
)
NO_BASE = Failure(FailureKind.MODEL_PARSE, "The judge gave none of the base's answers a score.")


class Scored(NamedTuple):
    """Holds what became of an answer: a score, or the failure that it has none by.

    `spread` is how far its scores lie apart in the permutations; None where there is one order only.
    """

    score: float | None = None
    reason: str = ""
    spread: float | None = None
    failure: Failure | None = None


class OfCall(NamedTuple):
    """Holds what was said of each answer in the permutations of one call; a failure if nothing was."""

    said: Mapping[int, Sequence[Said]]
    failure: Failure | None


def alike(answers: Iterable[T], reason: str) -> dict[T, Scored]:
    """Returns the scores of answers that there is nothing to compare with."""
    return dict.fromkeys(answers, Scored(EVEN, reason))


def against(found: Sequence[Scored], base: Sequence[Scored | None]) -> list[Scored]:
    """Returns how answers compare with the base's: 0.5 for one as good as the base's in its place.

    It is 1 where the answer has the highest score and the base's the lowest. Where the base's did not parse,
    or got no score, an answer is compared with the mean of the others.
    """
    scores = [None if one is None else one.score for one in base]
    known = [score for score in scores if score is not None]
    if not known:
        failures = [one.failure for one in base if one is not None and one.failure != NO_SCORE]
        failed = Scored(failure=failures[0] if failures else NO_BASE)
        return [one if one.score is None else failed for one in found]
    level = fmean(known)
    compared = []
    for one, score in zip_longest(found, scores[: len(found)]):
        than = level if score is None else score
        compared.append(one if one.score is None else one._replace(score=EVEN + (one.score - than) / 2))
    return compared


def scores_of(
    calls: Sequence[Sequence[Sequence[int]]],
    anchors: Sequence[int],
    replies: Sequence[Reply | GradeFailed],
    model: str,
) -> list[Scored]:
    """Returns what became of each answer, by its number.

    `calls` are the orders in which each call has shown its answers, one for each permutation; `replies` are
    those to all of them in turn. A permutation that failed is left out of a call's means. Where a judge
    is lost, no answer has a score: the group would have another one once the judge is back.
    """
    lost = [one.failure for one in replies if isinstance(one, GradeFailed) and one.failure.lost]
    answers = sorted({answer for orders in calls for answer in orders[0]})
    if lost:
        return [Scored(failure=lost[0])] * len(answers)
    left = iter(replies)
    read = [_read(orders, [next(left) for _ in orders], model) for orders in calls]
    heard = [one for one in read if one.failure is None]
    means = [{answer: fmean(one.score for one in said) for answer, said in of.said.items()} for of in heard]
    scale = on_one_scale(means, anchors) if means else {}
    return [
        _scored(scale[answer], answer, heard, is_permuted=len(calls[0]) > 1)
        if answer in scale
        else Scored(failure=_why_none(answer, calls, read))
        for answer in answers
    ]


def _read(orders: Sequence[Sequence[int]], replies: Sequence[Reply | GradeFailed], model: str) -> OfCall:
    """Returns what the permutations of one call have said of each answer."""
    said: dict[int, list[Said]] = {}
    failures = []
    for order, reply in zip(orders, replies, strict=True):
        names = names_of(len(order))
        try:
            if isinstance(reply, GradeFailed):
                raise reply
            by_name = read_scores(reply, model, names)
        except GradeFailed as failed:
            failures.append(failed.failure)
            continue
        for name, answer in zip(names, order, strict=True):
            if name in by_name:
                said.setdefault(answer, []).append(by_name[name])
    return OfCall(said, failures[0] if len(failures) == len(orders) else None)


def _scored(score: float, answer: int, heard: Sequence[OfCall], *, is_permuted: bool) -> Scored:
    said = [one.said[answer] for one in heard if answer in one.said]
    spread = max(max(s.score for s in of) - min(s.score for s in of) for of in said) if is_permuted else None
    return Scored(score, said[0][0].reason, spread)


def _why_none(answer: int, calls: Sequence[Sequence[Sequence[int]]], read: Sequence[OfCall]) -> Failure:
    shown_in = [of for orders, of in zip(calls, read, strict=True) if answer in orders[0]]
    if failures := [of.failure for of in shown_in if of.failure is not None]:
        return failures[0]
    return NO_SCALE if any(answer in of.said for of in shown_in) else NO_SCORE
