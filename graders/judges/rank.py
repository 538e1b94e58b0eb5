"""Grades `rank`: a judge model scores the answers to one prompt against each other. An extension of ours.

The idea is RULER's (OpenPipe's ART, 2025): a reward that needs no reference, since an update compares the
completions of a group with each other only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, NamedTuple

from graders.grading import Score, grade_by
from graders.judges.asking import ask_all, usage_of
from graders.judges.fence import RULE, fenced
from graders.judges.rank_reply import names_of, schema_of
from graders.judges.rank_scores import Scored, against, alike, scores_of
from graders.judges.rank_spec import RankSpec
from graders.judges.ranking import digest, permuted, split
from graders.judges.shown import conversation_of, sendable
from graders.services import Judge, Question, Target
from graders.template import Template
from graders.types import Base, Failure, FailureKind, Grade, GradeFailed, Sample, Usage

SPREAD = "spread"
"""The part that says how far an answer's scores lie apart in the permutations: the largest less the least."""
ALONE = (
    "A rank grader scores the answers to one prompt against each other, and there is only this one: give it "
    "several."
)
TASK = (
    "You are shown several answers to one and the same request. Compare them, and give each a score from 0 "
    "to 1: the better an answer, the higher its score. Answers that differ little get scores close together, "
    "those that differ much get scores far apart, and equally good ones get the same. The names of the "
    "answers and the order in which they stand mean nothing, and length by itself is no merit."
)
FORM = (
    'Reply with one JSON object and nothing else: {"scores": [{"answer": "answer-1", "reason": "...", '
    '"score": 0.5}, ...]}, with one entry for each answer. The reason is one short sentence and comes before '
    "the score, which is a number from 0 to 1."
)


class Shown(NamedTuple):
    """Holds what a judge is shown of a completion: the answer, and in an episode the steps to it."""

    answer: str
    steps: str = ""

    @property
    def is_blank(self) -> bool:
        """Tells whether there is nothing to show."""
        return not self.answer.strip() and not self.steps


class Request(NamedTuple):
    """Holds what all answers of a group have in common: what they answer, and what makes one better."""

    conversation: str
    instruction: str
    draw: str


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

        def alone(_sample: Sample, _item: Mapping[str, Any]) -> Score:
            raise GradeFailed(FailureKind.OTHER, ALONE)

        return grade_by(alone, sample, item)

    def grade_group(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Base | None = None
    ) -> list[Grade]:
        started = perf_counter()
        usage: Usage = {}
        try:
            found, usage = self._compare(samples, item, base)
        except GradeFailed as failed:  # of the row, which all have in common
            found = [Scored(failure=failed.failure)] * len(samples)
        grades = [_grade(one) for one in found]
        if grades:
            grades[0] = replace(grades[0], usage=usage, seconds=perf_counter() - started)
        return grades

    def _compare(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Base | None
    ) -> tuple[list[Scored], Usage]:
        """Returns what became of each completion, and what that has cost. Raises `GradeFailed`."""
        shared = _shared_messages([sample for sample in (*samples, *(base or ())) if sample is not None])
        shown = [self._shown(sample, item, len(shared)) for sample in samples]
        of_base = [sample and self._shown(sample, item, len(shared)) for sample in base or ()]
        answers = [one for one in (*shown, *of_base) if isinstance(one, Shown)]
        has_base = any(isinstance(one, Shown) for one in of_base)
        usage: Usage = {}
        if base is not None and not has_base:
            scored = alike(answers, "The base has no other answers that it could be compared with.")
        else:
            request = Request(
                conversation_of(Sample("", messages=shared), item, self.prompt),
                sendable(self.instruction.render(Sample(""), item)),
                samples[0].draw if samples else "",
            )
            scored, usage = self._score(answers, request)
        found = [Scored(failure=one) if isinstance(one, Failure) else scored[one] for one in shown]
        if has_base:
            found = against(found, [scored[one] if isinstance(one, Shown) else None for one in of_base])
        return found, usage

    def _shown(self, sample: Sample, item: Mapping[str, Any], shared: int) -> Shown | Failure:
        """Returns what is shown of a completion beyond the messages that all share, or why nothing can be."""
        own = replace(sample, messages=sample.messages[shared:])
        try:
            return Shown(sendable(self.input.render(sample, item)), conversation_of(own, {}))
        except GradeFailed as failed:
            return failed.failure

    def _score(self, answers: Sequence[Shown], request: Request) -> tuple[dict[Shown, Scored], Usage]:
        """Returns what became of each different answer, and what that has cost."""
        blank = {one: Scored(0.0, "It is blank.") for one in answers if one.is_blank}
        different = list(dict.fromkeys(one for one in answers if not one.is_blank))
        if len(different) < 2:
            return blank | alike(different, "There is no other answer to compare it with."), {}
        texts = [f"{one.steps}\n\n{one.answer}" for one in different]
        found = split(texts, request.draw or digest(*sorted(texts)).hex(), self.max_answers)
        calls = [self._orders(call) for call in found.calls]
        replies = ask_all(
            self.judge,
            [self._question([different[i] for i in order], request) for orders in calls for order in orders],
        )
        scored = scores_of(calls, found.anchors, replies, self.target.model)
        return blank | dict(zip(different, scored, strict=True)), usage_of(self.target.model, replies)

    def _orders(self, call: Sequence[int]) -> list[list[int]]:
        """Returns the orders in which a call is made, no more than the answers have places."""
        n = min(self.permutations, len(call))
        return [permuted(call, permutation, n) for permutation in range(n)]

    def _question(self, answers: Sequence[Shown], request: Request) -> Question:
        names = names_of(len(answers))
        told = [_told(one, name) for one, name in zip(answers, names, strict=True)]
        if request.conversation:
            told.insert(0, "What they answer:\n" + fenced("conversation", request.conversation))
        system = f"{TASK}\n\nWhat makes an answer better: {request.instruction}\n\n{RULE}\n\n{FORM}"
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": "\n\n".join(told)},
        ]
        return Question(self.target, messages, "rank", schema_of(names), self.sampling)


def _told(shown: Shown, name: str) -> str:
    """Returns an answer as the judge sees it, with the steps to it before."""
    answer = fenced(name, shown.answer)
    if not shown.steps:
        return answer
    return f"{fenced(name.replace('answer', 'steps'), shown.steps)}\n{answer}"


def _shared_messages(samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """Returns the messages that all episodes begin with, up to the last one that is no answer."""
    shared: list[Mapping[str, Any]] = []
    for messages in zip(*(sample.messages for sample in samples), strict=False):
        if any(message != messages[0] for message in messages):
            break
        shared.append(messages[0])
    while shared and shared[-1].get("role") == "assistant" and not shared[-1].get("tool_calls"):
        shared.pop()
    return shared


def _grade(scored: Scored) -> Grade:
    if scored.score is None:
        return Grade(None, scored.failure)
    parts = {} if scored.spread is None else {SPREAD: scored.spread}
    return Grade(scored.score, reason=scored.reason, parts=parts)
