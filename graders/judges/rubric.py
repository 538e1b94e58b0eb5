"""Grades `rubric`: a judge model says which criteria an answer meets. An extension of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graders.grading import Score, grade_by
from graders.judges.asking import ask_all, usage_of
from graders.judges.criteria import Criterion, Rubric, has_points, names_of, read_rubric, unreadable
from graders.judges.dropout import kept
from graders.judges.fence import RULE, fenced
from graders.judges.rubric_spec import RubricSpec
from graders.judges.shown import conversation_of, sendable
from graders.judges.verdicts import RESERVED, Verdict, parts_of, read_verdicts, reason_of, schema_of, value_of
from graders.services import Judge, Question, Reply, Target
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

TASK = (
    "You hold an answer against a list of criteria. Look at each criterion by itself: it is met where the "
    "answer does all that it states, and not met where anything of that is missing or the answer leaves it "
    'open. What a criterion names behind "such as", "for example" or "including" are examples, none of which '
    "must be there. Some criteria state a fault: such a one is met where the answer has the fault. You say "
    "only what is met, and not whether that is good."
)
FORM = (
    'Reply with one JSON object and nothing else: {"1": {"reason": "...", "met": true}}, with an entry for '
    "each criterion under its number. The reason is one short sentence and comes first; met is true or false."
)
ROUNDING = 1e-9
"""How far a share of a whole number may be off: 0.55 of 20 is 11, and a float says a little more."""
SYSTEM = f"{TASK}\n\n{RULE}\n\n{FORM}"


@dataclass(frozen=True)
class RubricGrader:
    """Grades by the criteria that a judge finds met: a built `rubric` grader.

    Attributes:
        listed: the grader's own criteria, each with the template of its text; None where rows hold them.
        of_row: where rows hold them; None where the grader lists them.
    """

    name: str
    target: Target
    judge: Judge
    input: Template
    prompt: Template | None
    listed: tuple[tuple[Template, Criterion], ...] | None
    of_row: Template | None
    one_call: bool
    dropout: float
    min_answered: float
    sampling: Mapping[str, Any] = field(default_factory=dict)
    type: str = "rubric"

    @classmethod
    def build(cls, spec: RubricSpec, judge: Judge) -> RubricGrader:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if there is no such judge, or it does not take what the spec wants.
        """
        judge.check(spec.target, spec.sampling, frozenset())
        return cls(
            spec.name,
            spec.target,
            judge,
            Template.parse(spec.input),
            Template.parse(spec.prompt) if spec.prompt is not None else None,
            _listed(spec),
            Template.parse(spec.criteria) if isinstance(spec.criteria, str) else None,
            spec.calls == "one",
            spec.dropout,
            spec.min_answered,
            spec.sampling,
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def check_row(self, item: Mapping[str, Any]) -> None:
        """Raises `GradeFailed` for a row whose rubric cannot be read. It asks nobody."""
        self.criteria_of(item)

    def criteria_of(self, item: Mapping[str, Any]) -> tuple[Criterion, ...]:
        """Returns the criteria for a row. Raises `GradeFailed` where its rubric cannot be read."""
        return self._rubric(Sample(""), item).criteria

    def with_criteria(self, criteria: Sequence[Criterion]) -> RubricGrader:
        """Returns the same grader for these criteria, all of them in one call, in this order.

        Each has the part of its name.
        """
        listed = tuple((Template(one.text, (one.text,)), one) for one in criteria)
        return replace(self, listed=listed, of_row=None, one_call=True, dropout=0.0)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        rubric = self._rubric(sample, item)
        criteria = [rubric.criteria[at] for at in kept(rubric.criteria, self.dropout, self.name, sample.draw)]
        asked = [criteria] if self.one_call else [[criterion] for criterion in criteria]
        conversation = conversation_of(sample, item, self.prompt) or sendable(rubric.query)
        answer = sendable(self.input.render(sample, item))
        replies = ask_all(self.judge, [self._question(conversation, answer, some) for some in asked])
        usage = usage_of(self.target.model, replies)
        verdicts, faults = _verdicts(asked, replies)
        try:
            _check_answered(verdicts, faults, len(replies), self.min_answered)
        except GradeFailed as failed:
            raise GradeFailed(failed.failure.kind, failed.failure.message, usage=usage) from None
        remark = next((one.remark for one in replies if isinstance(one, Reply) and one.remark), "")
        return Score(value_of(verdicts), parts_of(verdicts), reason_of(verdicts, remark), usage)

    def _rubric(self, sample: Sample, item: Mapping[str, Any]) -> Rubric:
        if self.of_row is not None:
            return read_rubric(self.of_row.value(sample, item))
        criteria = [
            replace(criterion, text=template.render(sample, item))
            for template, criterion in self.listed or ()
        ]
        if blank := [criterion.name for criterion in criteria if not criterion.text.strip()]:
            raise unreadable(f"leaves nothing of the criterion '{blank[0]}'")
        return Rubric(tuple(criteria))

    def _question(self, conversation: str, answer: str, criteria: Sequence[Criterion]) -> Question:
        """Asks of some criteria. What many questions share comes first, which servers' prefix caches need."""
        told = "Criteria:\n" + "\n".join(
            f"{number}. {sendable(' '.join(criterion.text.split()))}"
            for number, criterion in enumerate(criteria, start=1)
        )
        judged = "The answer to judge:\n" + fenced("answer", answer)
        asked = ["What it answers:\n" + fenced("conversation", conversation)] if conversation else []
        text = "\n\n".join([*asked, told, judged] if self.one_call else [*asked, judged, told])
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        return Question(self.target, messages, "rubric", schema_of(len(criteria)), self.sampling)


def _verdicts(
    asked: Sequence[Sequence[Criterion]], replies: Sequence[Reply | GradeFailed]
) -> tuple[list[Verdict], list[GradeFailed]]:
    """Returns a verdict on each criterion, and the calls that gave none."""
    verdicts: list[Verdict] = []
    faults: list[GradeFailed] = []
    for criteria, reply in zip(asked, replies, strict=True):
        try:
            if isinstance(reply, GradeFailed):
                raise reply
            verdicts += read_verdicts(reply.text, criteria)
        except GradeFailed as fault:
            faults.append(fault)
            verdicts += [Verdict(criterion, None) for criterion in criteria]
    return verdicts, faults


def _check_answered(
    verdicts: Sequence[Verdict], faults: Sequence[GradeFailed], calls: int, least: float
) -> None:
    """Raises `GradeFailed` where the judge was away, or answered less than a share `least` of the criteria:
    what is left would be no grade of this answer.
    """
    if away := [fault for fault in faults if fault.failure.kind.is_servers_fault]:
        raise away[0]
    answered = [verdict.criterion for verdict in verdicts if verdict.met is not None]
    is_enough = len(answered) >= least * len(verdicts) - ROUNDING
    if is_enough and has_points(answered):
        return
    if len(faults) == calls:
        raise faults[0]
    message = f"The judge answered {len(answered)} of {len(verdicts)} criteria, too few for a value."
    first = f" The first fault: {faults[0].failure.message}" if faults else ""
    raise GradeFailed(FailureKind.MODEL_PARSE, message + first)


def _listed(spec: RubricSpec) -> tuple[tuple[Template, Criterion], ...] | None:
    """Returns the criteria that a grader lists, each with the template of its text."""
    if isinstance(spec.criteria, str):
        return None
    names = names_of([one.criterion for one in spec.criteria], [one.name for one in spec.criteria], RESERVED)
    return tuple(
        (Template.parse(one.criterion), Criterion("", one.points, name, tuple(one.tags)))
        for one, name in zip(spec.criteria, names, strict=True)
    )
