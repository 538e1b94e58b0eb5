"""Measures a grader on cases: what it says, whether it says it again, and what moves it that should not."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from graders.build import build_grader
from graders.calibration.asking import Asker, Bench, Bounds, Tell, groups_of
from graders.calibration.biases import place_in, reward_of
from graders.calibration.cases import Case, spread
from graders.calibration.judge import measure_judge, planned
from graders.calibration.meter import metered
from graders.calibration.numbers import Estimate, pooled_deviation, share
from graders.calibration.people import Agreement, agreement, agreement_in_groups
from graders.calibration.report import Constancy, JudgeReport, Measured, Spent
from graders.intervals import Interval
from graders.judges.rank_spec import MAX_PERMUTATIONS, RankSpec
from graders.judges.spec import AskingSpec
from graders.services import Services
from graders.spec import (
    GraderSpec,
    MultiSpec,
    SingleSpec,
    is_of_groups,
    judge_of,
    known_range,
    single_graders,
)
from graders.types import FailureKind, Grade

SAME = 0.05
"""Rewards that differ by no more than this share of the range count as the same. Chosen, not measured."""
UNREAD = (FailureKind.MODEL_PARSE, FailureKind.MODEL_MAX_TOKENS, FailureKind.MODEL_REFUSAL)
"""Failures of a judge that replied, but not with a grade."""
NOT_COMPARED = (
    "No answer with a person's score could be compared; a `rank` needs several answers to one and the same"
    " row."
)
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
        self.asker = Asker(self.meter, self.bounds, self.tell)
        self.asker.planned = planned(_judged(self.spec), self.cases, self.bounds)
        self.bench = self._bench(self.spec)

    def run(self) -> Measured:
        everywhere = range(len(self.cases))
        first = self.bench.as_they_are(everywhere)
        found = {place: reward_of(one[0]) for place, one in zip(everywhere, first, strict=True) if one}
        rewards = {place: reward for place, reward in found.items() if reward is not None}
        width = known_range(self.spec) or _seen_range(list(rewards.values()))
        constancy = self._constancy(rewards, width)
        judges = tuple(self._judge(name, part, rewards) for name, part in _judged(self.spec))
        labelled = [case for case in self.cases if case.label is not None]
        agreed = self._agreement(rewards, width)
        return Measured(
            cases=len(self.cases),
            graded=len(rewards),
            labelled=len(labelled),
            agreement=agreed,
            constancy=constancy,
            unparsable=self._unparsable() if judges else None,
            failed=self._failed() if judges else None,
            judges=judges,
            spent=self._spent(),
            left_out=_left_out(labelled, agreed, judges),
            not_asked=self.asker.left_out,
            is_lost=self.asker.is_lost,
        )

    def _bench(self, spec: GraderSpec) -> Bench:
        return Bench(self.asker, build_grader(spec, self.watched), self.cases, partial(usual_calls, spec))

    def _agreement(self, rewards: Mapping[int, float], width: Interval) -> Agreement | None:
        cases = enumerate(self.cases)
        pairs = {i: (rewards[i], case.label) for i, case in cases if i in rewards and case.label is not None}
        if is_of_groups(self.spec):
            groups = [[pairs[i] for i in group if i in pairs] for group in groups_of(self.cases)]
            return agreement_in_groups([group for group in groups if len(group) > 1])
        threshold: float | None = getattr(self.spec, "pass_threshold", None)
        return agreement(list(pairs.values()), width, self.scale, threshold)

    def _constancy(self, rewards: Mapping[int, float], width: Interval) -> Constancy | None:
        chosen = spread(list(rewards), self.bounds.repeated)
        again = self.bench.as_they_are(chosen, self.bounds.repeats - 1)
        groups = []
        for place, grades in zip(chosen, again, strict=True):
            values = [rewards[place], *(grade.reward for grade in grades)]
            groups.append([place_in(value, width) for value in values if value is not None])
        near = [abs(one - group[0]) <= SAME for group in groups for one in group[1:]]
        same, deviation = share(sum(near), len(near)), pooled_deviation(groups)
        return None if same is None or deviation is None else Constancy(same, deviation, len(chosen))

    def _judge(self, name: str, part: SingleSpec, rewards: Mapping[int, float]) -> JudgeReport:
        """Measures one judge by itself: what moves it, whatever a formula makes of that."""
        if not name and not isinstance(part, RankSpec):
            return measure_judge(self.bench, "", part, self.meter, rewards)
        alone = self._bench(_in_every_place(part, self.cases))
        return measure_judge(alone, name, part, self.meter, None)

    def _unparsable(self) -> Estimate | None:
        replied = [grade for grade in self.asker.grades if not _is_lost(grade)]
        return share(sum(_is_unread(grade) for grade in replied), len(replied))

    def _failed(self) -> Estimate | None:
        if self.meter is not None and self.meter.tries:
            return share(self.meter.failed_tries, self.meter.tries)
        return share(sum(map(_is_lost, self.asker.grades)), len(self.asker.grades))

    def _spent(self) -> Spent:
        meter, grades = self.meter, self.asker.grades
        # the seconds of a group stand with its first answer, so that a median would be 0
        middle = statistics.fmean if is_of_groups(self.spec) else statistics.median
        seconds = [grade.seconds for grade in grades if not _is_lost(grade)]
        return Spent(
            grades=len(grades),
            calls=meter.calls if meter else 0,
            usage=dict(meter.usage) if meter else {},
            seconds_a_grade=middle(seconds) if seconds else None,
            seconds=monotonic() - self.asker.started,
        )


def usual_calls(spec: GraderSpec, answers: int) -> int:
    """Returns how many calls of judges a grading of so many answers takes as a rule, and 1 at least."""
    calls = 0
    for single in single_graders(spec):
        match single:
            case RankSpec():
                calls += single.calls_of(answers)
            case AskingSpec():
                calls += single.usual_calls * answers
            case _:
                calls += answers * (judge_of(single) is not None)
    return max(1, calls)


def _in_every_place(spec: SingleSpec, cases: Sequence[Case]) -> SingleSpec:
    """Returns a `rank` that shows each answer once in every place, as far as it can; other kinds as they are.

    The order follows from the texts, so that a change of a text would else bring one of its place too.
    """
    if not isinstance(spec, RankSpec):
        return spec
    largest = max(map(len, groups_of(cases)), default=1)
    return spec.model_copy(update={"permutations": min(largest, spec.max_answers, MAX_PERMUTATIONS)})


def _judged(spec: GraderSpec) -> list[tuple[str, SingleSpec]]:
    """Returns the judges of a grader, by the names that a `multi` gives them; a grader alone has none.

    A server of the user's (`endpoint`) may ask a model too.
    """
    parts = list(spec.subgraders.items()) if isinstance(spec, MultiSpec) else [("", spec)]
    return [(name, part) for name, part in parts if part.type == "endpoint" or judge_of(part) is not None]


def _seen_range(rewards: Sequence[float]) -> Interval:
    """Returns what rewards were from and to where nobody has stated it, no narrower than 0 to 1."""
    return Interval(min([0.0, *rewards]), max([1.0, *rewards]))


def _is_lost(grade: Grade) -> bool:
    return grade.failure is not None and grade.failure.kind.is_servers_fault


def _is_unread(grade: Grade) -> bool:
    failures = [grade.failure, *grade.part_failures.values()]
    return any(failure is not None and failure.kind in UNREAD for failure in failures)


def _left_out(
    labelled: Sequence[Case], agreed: Agreement | None, judges: Sequence[JudgeReport]
) -> dict[str, str]:
    """Returns what was not measured of the whole grader, with the reason."""
    reasons = {}
    if agreed is None:
        reasons["agreement"] = NOT_COMPARED if labelled else "There are no people's scores."
    if not judges:
        reasons |= dict.fromkeys(("position", "length", "talk", "unparsable"), NO_MODEL)
    return reasons
