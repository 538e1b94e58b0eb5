"""What a run knows of the other arms of its job: seeds beside it, or the real run beside a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from graders import TokenUsage
from workers.training.base.types import Checkpoint
from workers.training.trust.base_answers import BaseAnswers
from workers.training.trust.selection import Look


@dataclass(frozen=True)
class Base:
    """Holds what the first arm has measured of the base, so that the others need not."""

    look: Look
    gold: tuple[Look, ...]
    checkpoint: Checkpoint
    answers: BaseAnswers


@dataclass(frozen=True)
class Totals:
    """Holds what arms have spent together; `seconds` are by the job's clock."""

    trained_tokens: int = 0
    seconds: float = 0.0
    sampled_tokens: int = 0
    usage: Mapping[str, TokenUsage] = field(default_factory=dict)


Others = Callable[[Totals], Totals]
"""Takes what an arm has spent so far, and returns what the others have. They may train beside it."""


def nobody(_own: Totals) -> Totals:
    """Returns what others have spent where there are none: nothing."""
    return Totals()


@dataclass(frozen=True)
class Arm:
    """Describes one of a job's arms, and what the others have done so far. By default it is the only one.

    Attributes:
        until: the step of its own after which it is left for now; None for its last.
        is_control: its grades are permuted, and it keeps no checkpoints.
        is_alone: no other arm counts on the job's older states.
        base: what is known of the base; None where the arm has to measure it.
        looks: those of other arms before this rung, without the base's.
        planned_looks: evaluations that the job's arms may have together; None for its own.
        others: tells what the other arms have spent.
        spent_before: what had been spent of each budget when another arm paused for one.
    """

    until: int | None = None
    is_control: bool = False
    is_alone: bool = True
    base: Base | None = None
    looks: tuple[Look, ...] = ()
    planned_looks: int | None = None
    others: Others = nobody
    spent_before: Mapping[str, float] = field(default_factory=dict)


ONLY = Arm()
