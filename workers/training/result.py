"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from workers.training.base.types import Checkpoint
from workers.training.trust.gold import GoldOutcome
from workers.training.trust.selection import Judged
from workers.training.trust.verdict import Verdict


class ArmResult(NamedTuple):
    """Says how one of a job's seeds has done.

    Attributes:
        seed: it.
        steps: updates made.
        reward: of its best checkpoint, on the rows that judge it, in grader units; None without any that was
            graded.
        gain: the same over the base.
        low: the lower one-sided 95 % bound of that, over the looks of all seeds.
        high: the upper one.
        p: the chance of so large a gain of any checkpoint of any seed where there is none.
        kl: nats per token from the base to that checkpoint.
        best_step: its step in the job's numbering.
        guard_actions: what the guard has done or told.
        rollbacks: times that it went back to a good state.
        ended: "finished", "halved", "guard", "early_stop", the budget that was used up, or the code of a
            failure.
        rung: the halving, from 1, after which others went on and it did not; None for one that was left.
        is_control: a control's grades were permuted.
        is_delivered: the delivered checkpoint is its.
    """

    seed: int
    steps: int
    reward: float | None
    gain: float | None
    low: float | None
    high: float | None
    p: float | None
    kl: float | None
    best_step: int | None
    guard_actions: int
    rollbacks: int
    ended: str
    rung: int | None = None
    is_control: bool = False
    is_delivered: bool = False


class ControlResult(NamedTuple):
    """Says how much a control has gained, beside the real seed at the same steps.

    Attributes:
        kind: such as "random_reward".
        steps: updates made.
        gain: of its best checkpoint over the base, in grader units; None without any that was graded.
        low: the lower one-sided 95 % bound of that, over the control's looks.
        high: the upper one.
        p: the chance of so large a gain of any of its checkpoints where there is none.
        real_gain: of the best checkpoint of the job's own seed up to the same step.
        ended: as for seeds, or the code of its failure.
    """

    kind: str
    steps: int
    gain: float | None
    low: float | None
    high: float | None
    p: float | None
    real_gain: float | None
    ended: str


@dataclass(frozen=True)
class RunResult:
    """Says how a run ended.

    Attributes:
        best: the checkpoint to deliver. Step 0 means that nothing was better than the base.
        steps: updates made.
        trained_tokens: tokens seen in updates (prompt and completion).
        verdict: what is said of it; None in methods without a choice.
        judged: how each checkpoint compares with the base, right for all of them together.
        gold: what the gold grader says of what is delivered; None without one.
        arms: the seeds of the job, the delivered one first; empty where there is one alone.
        controls: what has been trained to show what is no gain.
    """

    best: Checkpoint
    steps: int
    trained_tokens: int
    verdict: Verdict | None = None
    judged: list[Judged] = field(default_factory=list)
    gold: GoldOutcome | None = None
    arms: list[ArmResult] = field(default_factory=list)
    controls: list[ControlResult] = field(default_factory=list)
