"""Grades `label_model`: a judge model chooses a label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graders.grading import Score, grade_by
from graders.judges.fence import DATA
from graders.judges.messages import ConversationTemplate
from graders.judges.reply import misread, read_reply, reason_of, reply_schema
from graders.judges.spec import LabelModelSpec
from graders.services import Judge, Question, Target
from graders.types import Grade, Sample


@dataclass(frozen=True)
class LabelModel:
    """Grades by the label that a judge chooses: a built `label_model` grader."""

    name: str
    target: Target
    conversation: ConversationTemplate
    labels: tuple[str, ...]
    passing: frozenset[str]
    judge: Judge
    sampling: Mapping[str, Any] = field(default_factory=dict)
    type: str = "label_model"

    @classmethod
    def build(cls, spec: LabelModelSpec, judge: Judge) -> LabelModel:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if there is no such judge, or it does not take what the spec wants.
        """
        labels = json.dumps(spec.labels, ensure_ascii=False)
        reply_format = (
            'Reply with one JSON object and nothing else: {"steps": [{"description": "...", "conclusion": '
            '"..."}], "label": "..."}. The steps are your reasoning, few and short; the label is one of '
            f"{labels}, letter by letter. {DATA}"
        )
        target = spec.target
        conversation = ConversationTemplate.of(spec, reply_format)
        passing = frozenset(spec.passing_labels)
        built = cls(spec.name, target, conversation, tuple(spec.labels), passing, judge, spec.sampling)
        judge.check(target, built.sampling, conversation.media)
        return built

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        schema = reply_schema("label", {"type": "string", "enum": list(self.labels)})
        messages = self.conversation.render(sample, item)
        reply = self.judge.ask(Question(self.target, messages, "label", schema, self.sampling))
        usage = {self.target.model: reply.usage}
        content = read_reply(reply.text, usage)
        label = content.get("label")
        if label not in self.labels:
            raise misread("has none of the labels as its 'label'", reply.text, usage)
        reason = f"{label}. {reason_of(content, reply.remark)}".strip()
        return Score(float(label in self.passing), reason=reason, usage=usage)
