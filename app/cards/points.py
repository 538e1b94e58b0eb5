"""What each checkpoint of a job spent and gained: KL and reward over the base, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.checkpoints.models import Checkpoint
from app.jobs.models import Job

NORMAL_95 = 1.959964
"""Standard errors from the mean of a normal distribution to either end of its middle 95 %."""


class Interval(NamedTuple):
    """Two ends, which are None where they are not known."""

    low: float | None
    high: float | None


UNKNOWN = Interval(None, None)


@dataclass(frozen=True)
class Point:
    """One checkpoint, of those whose files were dropped too.

    Attributes:
        kl: the 95 % interval of its KL.
        gain: reward over the base, in grader units; None where nothing was compared.
        gain_interval: bounds of it that each hold with 95 % over all looks of the job, where `p` is known;
            else the 95 % interval of this checkpoint alone.
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
    gains = gains_of(found)
    best = frontier([(each.kl, gain) for each, gain in zip(found, gains, strict=True)])
    basis = (job.verdict or {}).get("basis")
    return [
        _point(each, gain, basis, is_delivered=each.id == delivered, on_frontier=on)
        for each, gain, on in zip(found, gains, best, strict=True)
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


def gains_of(checkpoints: Sequence[Checkpoint]) -> list[float | None]:
    """Returns each one's reward over the base; the base's own is 0 where anything was compared with it."""
    compared = any(
        each.advantage_over_base is not None or each.valid_reward is not None for each in checkpoints
    )
    return [0.0 if each.step == 0 and compared else each.advantage_over_base for each in checkpoints]


def _point(
    checkpoint: Checkpoint, gain: float | None, basis: str | None, *, is_delivered: bool, on_frontier: bool
) -> Point:
    trust = checkpoint.trust or {}
    kl = around(checkpoint.kl, checkpoint.kl_stderr)
    return Point(
        checkpoint=checkpoint,
        kl=kl if kl.low is None else Interval(max(0.0, kl.low), kl.high),
        gain=gain,
        gain_interval=_interval_of_gain(checkpoint, gain),
        p=trust.get("p"),
        basis=trust.get("basis", basis),
        is_delivered=is_delivered,
        on_frontier=on_frontier,
    )


def _interval_of_gain(checkpoint: Checkpoint, gain: float | None) -> Interval:
    """Returns the bounds over all looks of the job where they are known, else those of this one alone."""
    if checkpoint.step == 0:
        return Interval(gain, gain)
    trust = checkpoint.trust or {}
    if trust.get("low") is not None and trust.get("high") is not None:
        return Interval(trust["low"], trust["high"])
    return around(gain, checkpoint.advantage_stderr)


def around(mean: float | None, stderr: float | None) -> Interval:
    """Returns the interval of a mean by its standard error."""
    if mean is None or stderr is None:
        return UNKNOWN
    return Interval(mean - NORMAL_95 * stderr, mean + NORMAL_95 * stderr)
