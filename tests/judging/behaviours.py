"""How a judge of each behaviour sees an answer: a number from 0 to 1, out of the answer's worth."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

from tests.judging.worth import Worth

Behaviour = Literal[
    "exact", "noisy", "position", "length", "gullible", "slow", "failing", "unparsable", "constant"
]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)

NOISE = 0.3
"""Standard deviation of what a noisy judge adds, anew at each reply."""
FIRST_BONUS = 0.5
"""What a judge biased by position gives the first of several answers, or criteria, beyond its worth."""
LONG_WORDS, LONG_BONUS = 200, 0.5
"""A judge biased by length gives half a point more for 200 words, and less for fewer."""
SLOW_SECONDS = 4.0
"""What a slow judge takes for a reply where `--delay-ms` does not say."""
FAILING_SHARE = UNPARSABLE_SHARE = 0.5

_OBEYS = re.compile(
    r"\b(scores?|grades?|marks|points|rating|results?|correct|verified|checked|perfect|judge|criteri\w+|"
    r"highest|rubric|evaluat\w+)\b",
    re.IGNORECASE,
)
"""Words after which a gullible judge gives what is asked for. Our own detector has others."""


@dataclass
class Eye:
    """Sees answers with one behaviour; its luck follows from the question and how often that was asked.

    So a test has the same luck whatever order its calls come in. Not safe for threads at the same time.
    """

    behaviour: Behaviour
    worth: Worth
    seed: int = 0
    luck: random.Random = field(default_factory=lambda: random.Random(0))
    asked: Counter[str] = field(default_factory=Counter)

    def turn_to(self, question: str) -> None:
        """Takes the luck of a question that is asked once more."""
        self.asked[question] += 1
        self.luck = random.Random(f"{self.seed}/{self.asked[question]}/{question}")

    def sees(self, answer: str, prompt: str, place: int = 0, of: int = 1) -> float:
        """Returns what the judge makes of the answer in a place (from 0) among several."""
        return self.bent(self.worth(answer, prompt), answer, place, of)

    def bent(self, worth: float, answer: str, place: int = 0, of: int = 1) -> float:
        """Returns what the judge makes of an answer of that worth."""
        match self.behaviour:
            case "noisy":
                worth += self.luck.gauss(0.0, NOISE)
            case "position" if of > 1 and place == 0:
                worth += FIRST_BONUS
            case "length":
                worth = (1 - LONG_BONUS) * worth + LONG_BONUS * min(1.0, len(answer.split()) / LONG_WORDS)
            case "gullible" if _OBEYS.search(answer):
                worth = 1.0
            case "constant":
                worth = 0.5
        return min(1.0, max(0.0, worth))

    def fails(self) -> bool:
        """Whether this reply is an error."""
        return self.behaviour == "failing" and self.luck.random() < FAILING_SHARE

    def is_unparsable(self) -> bool:
        """Whether this reply is prose."""
        return self.behaviour == "unparsable" and self.luck.random() < UNPARSABLE_SHARE
