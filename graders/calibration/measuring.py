"""Measures a grader on cases: what it says, whether it says it again, and what moves it that should not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from graders.build import build_grader
from graders.calibration.asking import Asked, Asker, Bounds, Tell
from graders.calibration.biases import place_in, reward_of
from graders.calibration.cases import Case, spread
from graders.calibration.judge import measure_judge, planned
from graders.calibration.meter import metered
from graders.calibration.numbers import Estimate, pooled_deviation, share
from graders.calibration.people import Agreement, agreement
from graders.calibration.report import Constancy, JudgeReport, Measured, Spent
from graders.intervals import Interval
from graders.services import Services
from graders.spec import GraderSpec, MultiSpec, SingleSpec, known_range
from graders.types import FailureKind, Grade

SAME = 0.05
"""Rewards that differ by no more than this share of the range count as the same. Chosen, not measured."""
UNREAD = (FailureKind.MODEL_PARSE, FailureKind.MODEL_MAX_TOKENS, FailureKind.MODEL_REFUSAL)
"""Failures of a judge that replied, but not with a grade."""
JUDGES = ("score_model", "label_model", "rubric", "rank", "endpoint")
"""Kinds that a text may talk round: they ask a model, or a server that may ask one."""
NO_MODEL = "It asks no model, so that length, order and words to a judge are no concern of their own."


def measure(
    spec: GraderSpec,
    services: Services,
    cases: Sequence[Case],
    bounds: Bounds | None = None,
    *,
    scale: Interval | None = None,
    tell: Tell = lambda _done, _planned: None,
) -> Measured:
    """Measures a grader on cases, within bounds; `services` should not remember replies.

    `scale` is what people's scores are from and to. Raises `GraderInvalid` for a grader that cannot be built.
    """
    return _Measuring(spec, services, cases, bounds or Bounds(), scale, tell).run()


@dataclass
class _Measuring:
    """Holds one measurement under way."""

    spec: GraderSpec
    services: Services
    cases: Sequence[Case]
    bounds: Bounds
    scale: Interval | None
    tell: Tell

    def __post_init__(self) -> None:
        self.watched, self.meter = metered(self.services)
        self.grader = build_grader(self.spec, self.watched)
        self.asker = Asker(self.meter, self.bounds, self.tell)
        self.asker.planned = planned(_judged(self.spec), self.cases, self.bounds)

    def run(self) -> Measured:
        bases = self.asker.grade(self.grader, [Asked(case.answer, case.item) for case in self.cases])
        rewards = [reward_of(grade) for grade in bases]
        known = [reward for reward in rewards if reward is not None]
        width = known_range(self.spec) or _seen_range(known)
        constancy = self._constancy(rewards, width)
        judges = tuple(self._judge(name, part, rewards) for name, part in _judged(self.spec))
        labelled = [case for case in self.cases if case.label is not None]
        return Measured(
            cases=len(self.cases),
            graded=len(known),
            labelled=len(labelled),
            agreement=self._agreement(rewards, width),
            constancy=constancy,
            deviates=_deviation(known, width),
            unparsable=self._unparsable() if judges else None,
            failed=self._failed() if judges else None,
            judges=judges,
            spent=self._spent(),
            left_out=_left_out(labelled, judges),
            not_asked=self.asker.left_out,
            is_lost=self.asker.is_lost,
        )

    def _agreement(self, rewards: Sequence[float | None], width: Interval) -> Agreement | None:
        pairs = [
            (reward, case.label)
            for reward, case in zip(rewards, self.cases, strict=True)
            if reward is not None and case.label is not None
        ]
        threshold: float | None = getattr(self.spec, "pass_threshold", None)
        return agreement(pairs, width, self.scale, threshold)

    def _constancy(self, rewards: Sequence[float | None], width: Interval) -> Constancy | None:
        chosen = spread([i for i, reward in enumerate(rewards) if reward is not None], self.bounds.repeated)
        again = self.bounds.repeats - 1
        cases = [self.cases[i] for i in chosen]
        asked = [Asked(case.answer, case.item) for case in cases for _ in range(again)]
        grades = self.asker.grade(self.grader, asked)
        groups = []
        for place, i in enumerate(chosen):
            more = [reward_of(grade) for grade in grades[place * again : (place + 1) * again]]
            groups.append([place_in(value, width) for value in (rewards[i], *more) if value is not None])
        near = [abs(one - group[0]) <= SAME for group in groups for one in group[1:]]
        same, deviation = share(sum(near), len(near)), pooled_deviation(groups)
        return None if same is None or deviation is None else Constancy(same, deviation, len(chosen))

    def _judge(self, name: str, part: SingleSpec, rewards: Sequence[float | None]) -> JudgeReport:
        """Measures one judge by itself: what moves it, whatever a formula makes of that."""
        if not name:
            return measure_judge(self.asker, "", part, self.grader, self.cases, rewards)
        grader = build_grader(part, self.watched)
        return measure_judge(self.asker, name, part, grader, self.cases, None)

    def _unparsable(self) -> Estimate | None:
        replied = [grade for grade in self.asker.grades if not _is_lost(grade)]
        return share(sum(_is_unread(grade) for grade in replied), len(replied))

    def _failed(self) -> Estimate | None:
        if self.meter is not None and self.meter.tries:
            return share(self.meter.failed_tries, self.meter.tries)
        return share(sum(map(_is_lost, self.asker.grades)), len(self.asker.grades))

    def _spent(self) -> Spent:
        meter, grades = self.meter, self.asker.grades
        seconds = [grade.seconds for grade in grades if not _is_lost(grade)]
        return Spent(
            grades=len(grades),
            calls=meter.calls if meter else 0,
            usage=dict(meter.usage) if meter else {},
            seconds_a_grade=statistics.median(seconds) if seconds else None,
            seconds=monotonic() - self.asker.started,
        )


def _judged(spec: GraderSpec) -> list[tuple[str, SingleSpec]]:
    """Returns the judges of a grader with the names that a `multi` gives them; a grader alone has none."""
    parts = list(spec.subgraders.items()) if isinstance(spec, MultiSpec) else [("", spec)]
    return [(name, part) for name, part in parts if part.type in JUDGES]


def _seen_range(rewards: Sequence[float]) -> Interval:
    """Returns what rewards were from and to where nobody has stated it, no narrower than 0 to 1."""
    return Interval(min([0.0, *rewards]), max([1.0, *rewards]))


def _deviation(rewards: Sequence[float], width: Interval) -> float | None:
    return statistics.stdev([place_in(reward, width) for reward in rewards]) if len(rewards) > 1 else None


def _is_lost(grade: Grade) -> bool:
    return grade.failure is not None and grade.failure.kind.is_servers_fault


def _is_unread(grade: Grade) -> bool:
    failures = [grade.failure, *grade.part_failures.values()]
    return any(failure is not None and failure.kind in UNREAD for failure in failures)


def _left_out(labelled: Sequence[Case], judges: Sequence[JudgeReport]) -> dict[str, str]:
    """Returns what was not measured of the whole grader, with the reason."""
    reasons = {}
    if not labelled:
        reasons["agreement"] = "There are no people's scores."
    if not judges:
        reasons |= dict.fromkeys(("position", "length", "talk", "unparsable"), NO_MODEL)
    return reasons
