"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.training.base.types import Checkpoint
from workers.training.trust.selection import Judged
from workers.training.trust.verdict import Verdict


@dataclass(frozen=True)
class RunResult:
    """Says how a run ended.

    Attributes:
        best: the checkpoint to deliver. Step 0 means that nothing was better than the base.
        steps: updates made.
        trained_tokens: tokens seen in updates (prompt and completion).
        verdict: what is said of it; None in methods without a choice.
        judged: how each checkpoint compares with the base, right for all of them together.
    """

    best: Checkpoint
    steps: int
    trained_tokens: int
    verdict: Verdict | None = None
    judged: list[Judged] = field(default_factory=list)
