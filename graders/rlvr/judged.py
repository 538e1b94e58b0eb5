"""Scores the verifiers of open-instruct that ask a judge: `general-*` and `rubric`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graders.grading import Score
from graders.judges.fence import RULE, fenced
from graders.judges.label_model import LabelModel
from graders.judges.rubric import RubricGrader
from graders.judges.rubric_spec import RubricSpec
from graders.judges.score_model import ScoreModel
from graders.judges.shown import conversation_of, sendable
from graders.judges.spec import JudgeSpec, LabelModelSpec, MessageSpec, ScoreModelSpec
from graders.rlvr.labels import graded, tagged, text_of_label, without_answer_tags
from graders.rlvr.questions import GENERAL, TEN, Ask
from graders.services import Judge
from graders.types import Grader, Sample

RUBRIC = "rubric"
JUDGED = frozenset({*GENERAL, RUBRIC})
"""Verifiers that ask a judge."""
TAKES_LIST = frozenset({RUBRIC})


@dataclass(frozen=True)
class JudgedVerifiers:
    """Holds the graders that judged verifiers are made of, built once for a grader."""

    general: Mapping[str, Grader]
    rubric: RubricGrader

    @classmethod
    def build(cls, spec: JudgeSpec, judge: Judge) -> JudgedVerifiers:
        """Builds them for a judge. Raises `GraderInvalid` where it cannot be asked."""
        asked = spec.model_dump(exclude_none=True)
        rubric = RubricSpec(type="rubric", name=RUBRIC, criteria="{{item.label}}", **asked)
        general = {name: _build(name, ask, asked, judge) for name, ask in GENERAL.items()}
        return cls(general, RubricGrader.build(rubric, judge))

    def check(self, name: str, label: Any, item: Mapping[str, Any]) -> None:
        """Raises `GradeFailed` for a label that cannot be used. It asks nobody."""
        if name == RUBRIC:
            self.rubric.check_row({**item, "label": _alone(label)})
        else:
            _shown(GENERAL[name], Sample(""), label, item)

    def score(self, name: str, sample: Sample, label: Any, item: Mapping[str, Any]) -> Score:
        """Returns the score of a completion, from 0 to 1. Raises `GradeFailed`."""
        if name == RUBRIC:
            answered = replace(sample, output_text=_answer(sample))
            return graded(self.rubric, answered, {**item, "label": _alone(label)})
        ask = GENERAL[name]
        score = graded(self.general[name], sample, {"shown": _shown(ask, sample, label, item)})
        return score._replace(value=score.value / TEN) if ask.in_marks else score


def _build(name: str, ask: Ask, asked: Mapping[str, Any], judge: Judge) -> Grader:
    messages = [
        MessageSpec(role="system", content=f"{ask.task}\n\n{RULE}"),
        MessageSpec(role="user", content="{{item.shown}}"),
    ]
    if ask.in_marks:
        marks = ScoreModelSpec(type="score_model", name=name, input=messages, range=[1.0, TEN], **asked)
        return ScoreModel.build(marks, judge)
    yes = LabelModelSpec(
        type="label_model", name=name, input=messages, labels=["yes", "no"], passing_labels=["yes"], **asked
    )
    return LabelModel.build(yes, judge)


def _shown(ask: Ask, sample: Sample, label: Any, item: Mapping[str, Any]) -> str:
    """Returns what a judge is shown. Raises `GradeFailed` where a label is missing."""
    parts = []
    if conversation := conversation_of(sample, item):
        parts.append("What it answers:\n" + fenced("conversation", conversation))
    if ask.label and (ask.needs_label or label not in (None, "")):
        told = sendable(text_of_label(_alone(label)))
        parts.append(f"The {ask.label}:\n" + (told if ask.label == "demands" else fenced(ask.label, told)))
    judged = "The answer to judge:\n" + fenced("answer", sendable(_answer(sample)))
    return "\n\n".join([*parts, judged])


def _answer(sample: Sample) -> str:
    """Returns what stands between answer tags; all of the text where there are none."""
    found = tagged(sample.output_text, "answer")
    return without_answer_tags(sample.output_text) if found is None else found.strip()


def _alone(label: Any) -> Any:
    """Returns the one value of a list of one text, in which rows may wrap their label."""
    return label[0] if isinstance(label, list) and len(label) == 1 and isinstance(label[0], str) else label
