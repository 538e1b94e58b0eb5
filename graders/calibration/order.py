"""Measures how far the place of an answer, or of a criterion, moves a judge that sees several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graders.calibration.asking import Asked, Asker, groups_of
from graders.calibration.cases import Case
from graders.calibration.numbers import Estimate, mean
from graders.grading import of_answer
from graders.judges.criteria import Criterion
from graders.judges.fence import fenced_texts
from graders.judges.rank import Rank
from graders.judges.rank_spec import RankSpec
from graders.judges.rubric import RubricGrader
from graders.judges.rubric_spec import RubricSpec
from graders.services import Judge, Question, Reply, Target
from graders.types import Grade, GradeFailed, Sample

ORDERS = 4
"""Orders in which each group is shown. Chosen, not measured: an answer of a group of four stands in each
place once, as a rule."""


def criteria_bias(asker: Asker, spec: RubricSpec, judge: Judge, cases: Sequence[Case]) -> Estimate | None:
    """Returns by how much likelier a criterion is met where it comes first than where it comes last.

    Each case is graded twice, with its criteria in their order and the other way round; the two criteria at
    the ends change places. None where no case has two criteria.
    """
    rubric = RubricGrader.build(spec, judge)
    asked, ends = [], []
    for case in cases:
        criteria = _criteria_of(rubric, case.item)
        if len(criteria) < 2:
            continue
        ends.append((criteria[0].name, criteria[-1].name))
        for order in (criteria, criteria[::-1]):
            grader = of_answer(rubric.with_criteria(order), spec.thoughts)
            asked.append(Asked(grader, (Sample(case.answer),), case.item))
    grades = [None if found is None else found[0] for found in asker.grade(asked)]
    pairs = zip(ends, grades[::2], grades[1::2], strict=True)
    return mean([move for pair in pairs for move in _moves(*pair)])


def answers_bias(asker: Asker, spec: RankSpec, judge: Judge, cases: Sequence[Case]) -> Estimate | None:
    """Returns how much more an answer gets in first place than in last, of a judge that scores groups.

    Each group is shown in several orders. A line through the scores of its answers over their places, each
    less its answer's mean, gives the group's difference between the ends. None of fewer than two groups.
    """
    listeners, asked = [], []
    groups = [group for group in groups_of(cases) if len(group) > 1]
    once = spec.model_copy(update={"permutations": 1})
    for group in groups:
        for order in range(ORDERS):
            listener = _Listener(judge)
            rank = Rank.build(once, listener)
            samples = tuple(Sample(cases[i].answer, draw=f"calibration/{order}") for i in group)
            listeners.append(listener)
            grader, calls = of_answer(rank, spec.thoughts), once.calls_of(len(group))
            asked.append(Asked(grader, samples, cases[group[0]].item, calls))
    grades = asker.grade(asked)
    slopes = []
    for n, group in enumerate(groups):
        seen = range(n * ORDERS, (n + 1) * ORDERS)
        answers = [cases[i].answer for i in group]
        by_order = [_places(answers, listeners[i].shown, grades[i]) for i in seen]
        if (slope := _slope(by_order)) is not None:
            slopes.append(slope)
    return mean(slopes)


class _Listener:
    """Passes questions on to a judge, and keeps in what order the last one has shown its answers."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.shown: list[str] = []

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        self._judge.check(target, sampling, media)

    def ask(self, question: Question) -> Reply:
        texts = (str(message["content"]) for message in question.messages)
        fences = fenced_texts("\n\n".join(texts))
        self.shown = [text for name, text in fences if name.startswith("answer-")]
        return self._judge.ask(question)


def _places(
    answers: Sequence[str], shown: Sequence[str], grades: Sequence[Grade] | None
) -> dict[str, tuple[float, float]]:
    """Returns for each answer where it stood, from 0 for the first to 1 for the last, and its score."""
    scores = dict(zip(answers, (grade.value for grade in grades or ()), strict=False))
    if len(shown) < 2:
        return {}
    return {
        text: (place / (len(shown) - 1), score)
        for place, text in enumerate(shown)
        if (score := scores.get(text)) is not None
    }


def _slope(by_order: Sequence[Mapping[str, tuple[float, float]]]) -> float | None:
    """Returns what first place brings against last place, by least squares within answers; None without any
    answer that stood in two places."""
    over, under = 0.0, 0.0
    for text in {text for places in by_order for text in places}:
        seen = [places[text] for places in by_order if text in places]
        middle = sum(place for place, _ in seen) / len(seen)
        over += sum((place - middle) * score for place, score in seen)
        under += sum((place - middle) ** 2 for place, _ in seen)
    return None if under == 0 else -over / under


def _criteria_of(rubric: RubricGrader, item: Mapping[str, Any]) -> list[Criterion]:
    """Returns the criteria for a row, named by their places; none where it has no rubric that can be read."""
    try:
        found = rubric.criteria_of(item)
    except GradeFailed:
        return []
    return [replace(one, name=f"criterion {place}", tags=()) for place, one in enumerate(found)]


def _moves(ends: tuple[str, str], forth: Grade | None, back: Grade | None) -> list[float]:
    """Returns, for the criteria at the ends, their verdict in first place less that in last place."""
    if forth is None or back is None:
        return []
    first, last = ends
    pairs = ((forth.parts.get(first), back.parts.get(first)), (back.parts.get(last), forth.parts.get(last)))
    return [early - late for early, late in pairs if early is not None and late is not None]
