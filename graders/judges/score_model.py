"""Grades `score_model`: a judge model gives a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graders.grading import Score, grade_by
from graders.judges.fence import DATA
from graders.judges.messages import ConversationTemplate
from graders.judges.reply import misread, number, read_reply, reason_of, reply_schema
from graders.judges.spec import ScoreModelSpec
from graders.services import Judge, Question, Target
from graders.types import Grade, Sample

SCHEMA = reply_schema("result", {"type": "number"})


@dataclass(frozen=True)
class ScoreModel:
    """Grades by the number that a judge gives: a built `score_model` grader."""

    name: str
    target: Target
    conversation: ConversationTemplate
    low: float
    high: float
    judge: Judge
    sampling: Mapping[str, Any] = field(default_factory=dict)
    type: str = "score_model"

    @classmethod
    def build(cls, spec: ScoreModelSpec, judge: Judge) -> ScoreModel:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if there is no such judge, or it does not take what the spec wants.
        """
        low, high = spec.range
        reply_format = (
            'Reply with one JSON object and nothing else: {"steps": [{"description": "...", "conclusion": '
            '"..."}], "result": N}. The steps are your reasoning, few and short; N is your score, a number '
            f"from {low:g} to {high:g}. {DATA}"
        )
        target = spec.target
        built = cls(
            spec.name, target, ConversationTemplate.of(spec, reply_format), low, high, judge, spec.sampling
        )
        judge.check(target, built.sampling, built.conversation.media)
        return built

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item, lowest=self.low)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        messages = self.conversation.render(sample, item)
        reply = self.judge.ask(Question(self.target, messages, "score", SCHEMA, self.sampling))
        usage = {self.target.model: reply.usage}
        content = read_reply(reply.text, usage)
        result = number(content.get("result"))
        if result is None:
            raise misread("has no number as its 'result'", reply.text, usage)
        value = min(max(result, self.low), self.high)
        return Score(value, reason=reason_of(content, reply.remark), usage=usage)
