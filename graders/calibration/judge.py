"""Measures one judge by itself: what length, order and words to the judge move."""

from __future__ import annotations

from collections.abc import Sequence

from graders.calibration.asking import Asked, Asker, Bounds
from graders.calibration.biases import length_bias, reward_of, talk
from graders.calibration.cases import Case, spread
from graders.calibration.report import JudgeReport
from graders.calibration.tricks import TRICKS
from graders.intervals import Interval
from graders.judges.spec import LabelModelSpec, ScoreModelSpec
from graders.spec import SingleSpec, known_range
from graders.types import Grader

NOTHING_TO_SWAP = "It sees one answer and no list of criteria: there is nothing to swap."
NONE_WRONG = "No answer is known to be wrong."
NO_ROOM = "No wrong answer left room for a rise: the judge gave them all near the most."


def planned(judges: Sequence[tuple[str, SingleSpec]], cases: Sequence[Case], bounds: Bounds) -> int:
    """Returns about how many grades a measurement asks for."""
    n = len(cases)
    wrong = min(bounds.tricked, sum(case.is_wrong for case in cases))
    whole = n + min(bounds.repeated, n) * (bounds.repeats - 1)
    own = sum(min(bounds.padded, n) + wrong for name, _ in judges if name)
    return whole + own + len(judges) * (min(bounds.padded, n) + wrong * len(TRICKS))


def measure_judge(
    asker: Asker,
    name: str,
    spec: SingleSpec,
    grader: Grader,
    cases: Sequence[Case],
    rewards: Sequence[float | None] | None,
) -> JudgeReport:
    """Returns what moves a judge. `rewards` are those of the cases as they are, where they are known."""
    bounds = asker.bounds
    padded = spread(range(len(cases)), bounds.padded)
    wrong = spread([i for i, case in enumerate(cases) if case.is_wrong], bounds.tricked)
    bases = _bases(asker, grader, cases, sorted({*padded, *wrong})) if rewards is None else rewards
    width = known_range(spec) or Interval(0.0, 1.0)
    length = length_bias(asker, grader, [cases[i] for i in padded], [bases[i] for i in padded], width)
    told = [cases[i] for i in wrong]
    found = talk(asker, grader, told, [bases[i] for i in wrong], width, _most(spec)) if told else None
    left_out = {"position": NOTHING_TO_SWAP}
    if found is None:
        left_out["talk"] = NO_ROOM if told else NONE_WRONG
    return JudgeReport(name, spec.type, length=length, talk=found, left_out=left_out)


def _bases(asker: Asker, grader: Grader, cases: Sequence[Case], wanted: Sequence[int]) -> list[float | None]:
    """Returns the rewards of some cases by their place among all; None for the others."""
    grades = asker.grade(grader, [Asked(cases[i].answer, cases[i].item) for i in wanted])
    found = dict(zip(wanted, map(reward_of, grades), strict=True))
    return [found.get(i) for i in range(len(cases))]


def _most(spec: SingleSpec) -> str:
    """Returns the best that a judge can give, in the words of its reply."""
    match spec:
        case LabelModelSpec():
            return spec.passing_labels[0]
        case ScoreModelSpec():
            return f"{spec.range[1]:g}"
        case _:
            return "1"
