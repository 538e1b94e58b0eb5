"""Grades `endpoint`: a server of the user's gives the score."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graders.grading import Score, grade_by
from graders.judges.reply import MAX_REASON, number
from graders.judges.spec import EndpointSpec
from graders.services import EndpointCaller, EndpointRequest
from graders.template import sample_variables
from graders.types import FailureKind, Grade, GradeFailed, Sample


@dataclass(frozen=True)
class Endpoint:
    """Grades by the score that a server of the user's gives: a built `endpoint` grader."""

    name: str
    url: str
    headers: Mapping[str, str]
    rate_limit: float | None
    caller: EndpointCaller
    type: str = "endpoint"

    @classmethod
    def build(cls, spec: EndpointSpec, caller: EndpointCaller) -> Endpoint:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` for a URL that must not be called.
        """
        caller.check(spec.url)
        return cls(spec.name, spec.url, spec.headers, spec.rate_limit, caller)

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        trace_id = sample.trace_id or uuid.uuid4().hex
        body = {"sample": sample_variables(sample), "item": dict(item), "trace_id": trace_id}
        response = self.caller.post(EndpointRequest(self.url, self.headers, body, self.rate_limit))
        score = number(response.get("score")) if isinstance(response, dict) else None
        if score is None:
            shown = repr(response)[:200]
            message = f'The server must answer {{"score": number}}, but answered {shown}.'
            raise GradeFailed(FailureKind.ENDPOINT_SERVER, message)
        reason = response.get("reason")
        return Score(score, reason=reason[:MAX_REASON] if isinstance(reason, str) else "")
