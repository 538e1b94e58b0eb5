"""What each checkpoint of a job spent and gained: KL and reward over the base, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints.models import Checkpoint
from app.jobs.models import Job

NORMAL_95 = 1.959964
"""Standard errors from the mean of a normal distribution to either end of its middle 95 %."""


class Interval(NamedTuple):
    """A 95 % interval; both ends are None where it is not known."""

    low: float | None
    high: float | None


UNKNOWN = Interval(None, None)


@dataclass(frozen=True)
class Point:
    """One checkpoint, of those whose files were dropped too.

    Attributes:
        gain: reward over the base, in grader units; None where nothing was compared.
        p: of "no better than the base", adjusted for all looks of the job; None where it is not known.
        basis: the rows that were looked at: "unseen" or "training".
        on_frontier: no other checkpoint has gained as much with a lower KL, or more with no higher one.
    """

    checkpoint: Checkpoint
    kl: Interval
    gain: float | None
    gain_interval: Interval
    p: float | None
    basis: str | None
    is_delivered: bool
    on_frontier: bool


def points(db: Session, job: Job) -> list[Point]:
    """Returns all checkpoints of a job, lowest step first, the untouched base too."""
    found = db.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)).all()
    delivered = checkpoints.delivered(db, job)
    best = frontier([(each.kl, gain_of(each)) for each in found])
    return [
        _point(each, is_delivered=each.id == delivered, on_frontier=on)
        for each, on in zip(found, best, strict=True)
    ]


def frontier(measured: Sequence[tuple[float, float | None]]) -> list[bool]:
    """Tells for each pair of KL and gain whether no other has more gain for no more KL, or less KL for as
    much. What was not compared is not on the frontier."""
    known = {(kl, gain) for kl, gain in measured if gain is not None}
    best: set[tuple[float, float | None]] = set()
    highest = float("-inf")
    for kl, gain in sorted(known, key=lambda pair: (pair[0], -pair[1])):
        if gain > highest:
            best.add((kl, gain))
            highest = gain
    return [pair in best for pair in measured]


def gain_of(checkpoint: Checkpoint) -> float | None:
    """Returns a checkpoint's reward over the base; the base's own is 0 where there are rewards."""
    if checkpoint.step == 0 and checkpoint.valid_reward is not None:
        return 0.0
    return checkpoint.advantage_over_base


def trust_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Returns what else was measured of a checkpoint; nothing of those of earlier versions."""
    return getattr(checkpoint, "trust", None) or {}


def _point(checkpoint: Checkpoint, *, is_delivered: bool, on_frontier: bool) -> Point:
    trust = trust_of(checkpoint)
    kl = around(checkpoint.kl, checkpoint.kl_stderr)
    gain = gain_of(checkpoint)
    return Point(
        checkpoint=checkpoint,
        kl=kl if kl.low is None else Interval(max(0.0, kl.low), kl.high),
        gain=gain,
        gain_interval=_interval_of_gain(checkpoint, gain, trust),
        p=trust.get("p"),
        basis=trust.get("basis"),
        is_delivered=is_delivered,
        on_frontier=on_frontier,
    )


def _interval_of_gain(checkpoint: Checkpoint, gain: float | None, trust: Mapping[str, Any]) -> Interval:
    if checkpoint.step == 0:
        return Interval(gain, gain)
    if trust.get("low") is not None and trust.get("high") is not None:
        return Interval(trust["low"], trust["high"])
    return around(gain, checkpoint.advantage_stderr)


def around(mean: float | None, stderr: float | None) -> Interval:
    """Returns the interval of a mean by its standard error."""
    if mean is None or stderr is None:
        return UNKNOWN
    return Interval(mean - NORMAL_95 * stderr, mean + NORMAL_95 * stderr)
