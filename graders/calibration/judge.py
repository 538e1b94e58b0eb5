"""Measures one judge by itself: what length, order and words to the judge move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graders.calibration.asking import Asker, Bench, Bounds
from graders.calibration.biases import length_bias, reward_of, talk
from graders.calibration.cases import Case, spread
from graders.calibration.numbers import Estimate
from graders.calibration.order import ORDERS, answers_bias, criteria_bias
from graders.calibration.report import JudgeReport
from graders.calibration.tricks import TRICKS
from graders.intervals import Interval
from graders.judges.rank_spec import RankSpec
from graders.judges.rubric_spec import RubricSpec
from graders.judges.spec import LabelModelSpec, ScoreModelSpec
from graders.services import Judge
from graders.spec import SingleSpec, known_range

NOTHING_TO_SWAP = "It sees one answer and no list of criteria: there is nothing to swap."
TOO_FEW_TO_SWAP = "It takes two rows at least that have several answers, or criteria, of which it was told."
ONE_BY_ONE = "It asks of each criterion by itself: there is no order."
NONE_WRONG = "No answer is known to be wrong."
NO_ROOM = "No wrong answer left room for a rise: the judge gave them all near the most."
TOO_FEW = "Fewer than two answers were graded."
CUT_SHORT = "Calls or time were used up before it was measured, or nobody answered."


def planned(judges: Sequence[tuple[str, SingleSpec]], cases: Sequence[Case], bounds: Bounds) -> int:
    """Returns about how many grades a measurement asks for."""
    n = len(cases)
    wrong = min(bounds.tricked, sum(case.is_wrong for case in cases))
    whole = n + min(bounds.repeated, n) * (bounds.repeats - 1)
    own = sum(min(bounds.padded, n) + wrong for name, _ in judges if name)
    swaps = {"rubric": 2, "rank": ORDERS}
    swapped = sum(swaps.get(spec.type, 0) * min(bounds.swapped, n) for _, spec in judges)
    return whole + own + swapped + len(judges) * (min(bounds.padded, n) + wrong * len(TRICKS))


def measure_judge(
    bench: Bench, name: str, spec: SingleSpec, judge: Judge | None, rewards: Mapping[int, float] | None
) -> JudgeReport:
    """Returns what moves a judge. `rewards` are those of the cases as they are, where they are known."""
    cases, bounds = bench.cases, bench.asker.bounds
    padded = spread(range(len(cases)), bounds.padded)
    wrong = spread([i for i, case in enumerate(cases) if case.is_wrong], bounds.tricked)
    bases = _bases(bench, sorted({*padded, *wrong})) if rewards is None else rewards
    width = known_range(spec) or Interval(0.0, 1.0)
    found = talk(bench, wrong, bases, width, _most(spec)) if wrong else None
    talk_cut = bench.asker.left_out
    length = length_bias(bench, padded, bases, width)
    length_cut = bench.asker.left_out - talk_cut
    position, why = _position(
        bench.asker, spec, judge, [cases[i] for i in spread(range(len(cases)), bounds.swapped)]
    )
    position_cut = bench.asker.left_out - length_cut - talk_cut
    left_out = {
        "position": None if position else CUT_SHORT if position_cut else why,
        "length": None if length else CUT_SHORT if length_cut else TOO_FEW,
        "talk": None if found else NONE_WRONG if not wrong else CUT_SHORT if talk_cut else NO_ROOM,
    }
    reasons = {measure: reason for measure, reason in left_out.items() if reason is not None}
    return JudgeReport(name, spec.type, position, length, found, reasons)


def _position(
    asker: Asker, spec: SingleSpec, judge: Judge | None, cases: Sequence[Case]
) -> tuple[Estimate | None, str]:
    """Returns what order moves, and why nothing is known of it."""
    match spec:
        case RubricSpec() if spec.calls == "each":
            return None, ONE_BY_ONE
        case RubricSpec() if judge is not None:
            return criteria_bias(asker, spec, judge, cases), TOO_FEW_TO_SWAP
        case RankSpec() if judge is not None:
            return answers_bias(asker, spec, judge, cases), TOO_FEW_TO_SWAP
        case _:
            return None, NOTHING_TO_SWAP


def _bases(bench: Bench, wanted: Sequence[int]) -> dict[int, float]:
    """Returns the rewards of some cases by their place among all, of those that have one."""
    grades = bench.as_they_are(wanted)
    found = {place: reward_of(one[0]) for place, one in zip(wanted, grades, strict=True) if one}
    return {place: reward for place, reward in found.items() if reward is not None}


def _most(spec: SingleSpec) -> str:
    """Returns the best that a judge can give, in the words of its reply."""
    match spec:
        case LabelModelSpec():
            return spec.passing_labels[0]
        case ScoreModelSpec():
            return f"{spec.range[1]:g}"
        case _:
            return "1"
