"""Grades `rank`: a judge model scores the answers to one prompt against each other. An extension of ours.

The idea is RULER's (OpenPipe's ART, 2025): a reward that needs no reference, since an update compares the
completions of a group with each other only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from time import perf_counter
from typing import Any, NamedTuple

from graders.grading import Score, grade_by
from graders.judges.asking import ask_all, usage_of
from graders.judges.fence import RULE, fenced
from graders.judges.rank_reply import Said, read_scores, schema_of
from graders.judges.rank_spec import RankSpec
from graders.judges.ranking import digest, on_one_scale, permuted, split
from graders.judges.shown import conversation_of, sendable
from graders.services import Judge, Question, Reply, Target
from graders.template import Template
from graders.types import Failure, FailureKind, Grade, GradeFailed, Sample, Usage

SPREAD = "spread"
"""The part that says how far an answer's scores lie apart in the permutations: the largest less the least."""
EVEN = 0.5
"""The value of an answer that is as good as what it is compared with."""
ALONE = (
    "A rank grader scores the answers to one prompt against each other, and there is only this one: give it "
    "several."
)
TASK = (
    "You are shown several answers to one and the same request. Compare them, and give each a score from 0 to "
    "1: the better an answer, the higher its score. Answers that differ little get scores close together, and "
    "those that differ much scores far apart; equally good ones get the same. The names of the answers and the "
    "order in which they stand mean nothing, and length by itself is no merit."
)
FORM = (
    'Reply with one JSON object and nothing else: {"scores": [{"answer": "answer-1", "reason": "...", "score": '
    "0.5}, ...]}, with one entry for each answer. The reason is one short sentence and comes before the score, "
    "which is a number from 0 to 1."
)


class Shown(NamedTuple):
    """Holds what a judge is shown of a completion: the answer, and in an episode the steps to it."""

    answer: str
    steps: str = ""

    @property
    def is_blank(self) -> bool:
        """Tells whether there is nothing to show."""
        return not self.answer.strip() and not self.steps.strip()


class Scored(NamedTuple):
    """Holds what became of an answer: a score or a failure."""

    score: float | None
    reason: str = ""
    spread: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Rank:
    """Grades the completions of a group by how a judge scores them against each other: a built `rank`."""

    name: str
    target: Target
    judge: Judge
    input: Template
    instruction: Template
    prompt: Template | None
    permutations: int
    max_answers: int
    sampling: Mapping[str, Any] = field(default_factory=dict)
    type: str = "rank"

    @classmethod
    def build(cls, spec: RankSpec, judge: Judge) -> Rank:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if there is no such judge, or it does not take what the spec wants.
        """
        judge.check(spec.target, spec.sampling, frozenset())
        return cls(
            spec.name,
            spec.target,
            judge,
            Template.parse(spec.input),
            Template.parse(spec.instruction),
            None if spec.prompt is None else Template.parse(spec.prompt),
            spec.permutations,
            spec.max_answers,
            spec.sampling,
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns a failure: one completion has no rank."""

        def alone(sample: Sample, item: Mapping[str, Any]) -> Score:
            raise GradeFailed(FailureKind.OTHER, ALONE)

        return grade_by(alone, sample, item)

    def grade_group(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Sequence[Sample] | None = None
    ) -> list[Grade]:
        """Returns how the completions compare with each other, or with those of the base (`GroupGrader`)."""
        started = perf_counter()
        usage: Usage = {}
        shared = _shared_messages([*samples, *(base or ())])
        shown = [self._shown(sample, item, shared) for sample in samples]
        if base is not None and not base:
            found = [_even(one, "These are the base's own answers.") for one in shown]
        else:
            of_base = [one for s in base or () if isinstance(one := self._shown(s, item, shared), Shown)]
            context = replace(samples[0], messages=samples[0].messages[:shared]) if samples else Sample("")
            scored, usage = self._score_all([one for one in (*shown, *of_base) if isinstance(one, Shown)], context, item)
            found = [one if isinstance(one, Scored) else scored[one] for one in shown]
            if base is not None:
                found = _against(found, [scored[one] for one in of_base])
        first, *rest = [_grade(one) for one in found] or [None]
        if first is None:
            return []
        return [replace(first, usage=usage, seconds=perf_counter() - started), *rest]
