"""Holds everything that was measured of a grader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from graders.calibration.biases import Talk
from graders.calibration.numbers import Estimate
from graders.calibration.people import Agreement
from graders.types import TokenUsage

Level = Literal["stop", "care", "info"]
"""How grave a remark is: `stop` is a reason not to train against a grader, `care` one to be careful."""


class Remark(NamedTuple):
    """Tells one thing about a grader: what was found, and what to do about it."""

    level: Level
    code: str
    message: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns the remark as JSON has it."""
        return self._asdict()


class Constancy(NamedTuple):
    """Says how far a grader agrees with itself when it is asked the same again.

    Attributes:
        same: share of repeats whose reward is that of the first, within a twentieth of the range.
        deviation: standard deviation between repeats, as a share of the range.
        cases: how many cases were repeated.
    """

    same: Estimate
    deviation: float
    cases: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON has it."""
        return {"same": self.same.as_dict(), "deviation": round(self.deviation, 4), "cases": self.cases}


@dataclass(frozen=True)
class JudgeReport:
    """Holds what was measured of one judge: a grader that asks a model, alone or as a part of a `multi`.

    Attributes:
        name: of the part; empty for a grader that is no `multi`.
        left_out: what was not measured, by measure, with the reason.
    """

    name: str
    type: str
    position: Estimate | None = None
    length: Estimate | None = None
    talk: Talk | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """Returns what the judge is called in a sentence."""
        return f"The judge '{self.name}'" if self.name else "The judge"

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON has it."""
        return {
            "name": self.name,
            "type": self.type,
            "position_bias": self.position.as_dict() if self.position else None,
            "length_bias": self.length.as_dict() if self.length else None,
            "talk": self.talk.as_dict() if self.talk else None,
            "left_out": dict(self.left_out),
        }


class Spent(NamedTuple):
    """Says what grades have cost.

    Attributes:
        grades: that were asked for.
        calls: of judges.
        usage: tokens by model.
        seconds_a_grade: the median; None of no grade.
        seconds: in all.
    """

    grades: int
    calls: int
    usage: Mapping[str, TokenUsage]
    seconds_a_grade: float | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Returns what was spent as JSON has it."""
        tokens = {
            model: {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
            for model, used in self.usage.items()
        }
        per_grade = None if self.seconds_a_grade is None else round(self.seconds_a_grade, 4)
        return {
            "grades": self.grades,
            "calls": self.calls,
            "tokens": tokens,
            "seconds_a_grade": per_grade,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Measured:
    """Holds all that was measured of a grader.

    Attributes:
        cases: answers that were to be graded, and `graded` those that got a reward.
        labelled: of the cases, those that people have scored.
        agreement: with people; None where nobody has scored anything.
        constancy: agreement with itself; None where nothing was repeated.
        unparsable: share of grades whose reply could not be read; None where no judge is asked.
        failed: share of calls to the judges' servers that brought no reply; the same.
        judges: what was measured of each judge.
        left_out: what was not measured of the whole grader, by measure, with the reason.
        not_asked: grades that the budget did not reach.
        is_lost: nobody answered, so that no more was asked.
    """

    cases: int
    graded: int
    labelled: int
    agreement: Agreement | None
    constancy: Constancy | None
    unparsable: Estimate | None
    failed: Estimate | None
    judges: tuple[JudgeReport, ...]
    spent: Spent
    left_out: Mapping[str, str]
    not_asked: int
    is_lost: bool

    def as_dict(self) -> dict[str, Any]:
        """Returns the measurements as JSON has them."""
        return {
            "cases": self.cases,
            "graded": self.graded,
            "labelled": self.labelled,
            "agreement": self.agreement.as_dict() if self.agreement else None,
            "self_agreement": self.constancy.as_dict() if self.constancy else None,
            "unparsable": self.unparsable.as_dict() if self.unparsable else None,
            "failed_calls": self.failed.as_dict() if self.failed else None,
            "judges": [judge.as_dict() for judge in self.judges],
            "cost": self.spent.as_dict(),
            "left_out": dict(self.left_out),
            "not_asked": self.not_asked,
        }
