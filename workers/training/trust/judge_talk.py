"""Whether completions have begun to speak to the judge: warned of where more of them do than the base's did.

Asking for a score is what training against a judge finds first where the judge gives it. The pattern-based
detector (graders/judges/talk.py) is wrong now and then, which is why its share alone says nothing: a test
compares the newest prompts with the first ones, whose completions are the base's or near it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from graders.judges.talk import speaks_to_judge
from graders.thoughts import answer_of
from workers.training.base.types import Completion, Group

PROMPTS = 32
"""Prompts on each side of the comparison. Chosen, not measured: four steps of eight prompts; a share of half
the prompts against none is then seen at once."""
SHARE_OF_RUN, LEAST_PROMPTS = 3, 8
"""Of a short run each side has at most one prompt in three, and at least eight. Chosen, not measured."""
FALSE_ALARMS = 0.05
"""Chance that a run of which the share never changes is warned of, chosen as for other warnings: each step's
test is at this over their number."""
CUTS = (1e-9, 0.5)
"""Shares of a prompt's completions from which on the prompt counts: any of them, or half. Both are tested:
the first sees a rare habit begin, the second a common one spread. Chosen, not measured."""


@dataclass
class JudgeTalk:
    """Holds what share of the completions to each prompt spoke to the judge. A part of the training state.

    Attributes:
        first: of each of the first prompts.
        newest: of each of the last ones.
        is_told: the person was told.
    """

    first: list[float] = field(default_factory=list)
    newest: list[float] = field(default_factory=list)
    is_told: bool = False

    def after(self, step: int, shares: Sequence[float], total_steps: int) -> str | None:
        """Takes in a step's prompts; returns a warning, once, where more speak to the judge than at first."""
        most = max(LEAST_PROMPTS, min(PROMPTS, total_steps * len(shares) // SHARE_OF_RUN))
        room = max(0, most - len(self.first))
        self.first += shares[:room]
        self.newest = [*self.newest, *shares[room:]][-most:]
        if self.is_told or len(self.newest) < most or not self._has_risen(total_steps):
            return None
        self.is_told = True
        return (
            f"Step {step}: {fmean(self.newest):.0%} of the completions to the last {len(self.newest)} prompts"
            " speak to the judge (they ask for a score, claim to have been checked, look like a message of"
            f" the system), {fmean(self.first):.0%} of those to the first {len(self.first)}. That is beyond"
            " luck: the model may have found out how to talk the judge round. Read its completions, and try"
            " the judge with `cherry graders check --labels`."
        )

    def _has_risen(self, total_steps: int) -> bool:
        bar = FALSE_ALARMS / len(CUTS) / max(1, total_steps)
        sides = [([one >= cut for one in self.first], [one >= cut for one in self.newest]) for cut in CUTS]
        return any(
            rise_by_luck(sum(first), len(first), sum(newest), len(newest)) < bar for first, newest in sides
        )


def talking_shares(groups: Sequence[Group]) -> list[float]:
    """Returns of each prompt what share of its completions speaks to a judge.

    Prompts are compared and not completions: those to one prompt are alike.
    """
    return [fmean(map(_speaks, group.completions)) for group in groups if group.completions]


def rise_by_luck(first: int, of_first: int, newest: int, of_newest: int) -> float:
    """Returns the chance of so many hits among the newest where both sides are alike.

    Fisher's exact test, one-sided.
    """
    hits, n = first + newest, of_first + of_newest
    ways = math.comb(n, hits)
    return (
        sum(
            math.comb(of_newest, k) * math.comb(of_first, hits - k)
            for k in range(newest, min(hits, of_newest) + 1)
            if hits - k <= of_first
        )
        / ways
    )


def _speaks(completion: Completion) -> bool:
    """Tells whether what a judge is shown of a completion speaks to it."""
    parts = completion.parts
    return speaks_to_judge(answer_of(completion.text, "auto") if parts is None else parts.answer)
