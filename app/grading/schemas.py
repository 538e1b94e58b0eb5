"""Grader runs on the wire."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.wire import Wire
from graders import Failure, FailureKind, Grade, GraderSpec, TokenUsage
from graders.spec import MultiSpec
from graders.spec_base import text_or_list
from graders.types import add_usages


class GraderValidate(Wire):
    """A grader to read."""

    grader: dict[str, Any]


MAX_SAMPLES = 64
"""Answers of one grader run. Chosen, not measured: more than groups have in training."""
Samples = Annotated[
    Annotated[str, Tag("~text")]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_SAMPLES), Tag("~list")],
    Discriminator(text_or_list),
]


class GraderRun(Wire):
    """A grader to try on one answer, or on several to the same row."""

    grader: dict[str, Any]
    model_sample: Samples = Field(
        description="Cherry: several answers, as a list, are graded together and get a grade each."
    )
    item: dict[str, Any] = Field(default_factory=dict)
    reference_answer: Any = Field(
        default=None, deprecated=True, description="Of an early revision: read as `item.reference_answer`."
    )

    @property
    def answers(self) -> list[str]:
        """The answers, one or several."""
        return self.model_sample if isinstance(self.model_sample, list) else [self.model_sample]

    def row(self) -> dict[str, Any]:
        """The dataset row that the grader sees."""
        if "reference_answer" in self.model_fields_set:
            return {"reference_answer": self.__dict__["reference_answer"], **self.item}
        return self.item


class GraderOut(BaseModel):
    """The grader as it was understood, its name filled in."""

    grader: dict[str, Any]


class Errors(BaseModel):
    """What went wrong, each kind by its flag.

    OpenAI's service sends more members than its document has, and we more details than both, so that every
    flag has its sentence.
    """

    formula_parse_error: bool = False
    formula_parse_error_details: str | None = None
    sample_parse_error: bool = False
    sample_parse_error_details: str | None = None
    truncated_observation_error: bool = False
    truncated_observation_error_details: str | None = None
    unresponsive_reward_error: bool = False
    unresponsive_reward_error_details: str | None = None
    invalid_variable_error: bool = False
    invalid_variable_error_details: str | None = None
    other_error: bool = False
    other_error_details: str | None = None
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_server_error_details: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    model_grader_refusal_error: bool = False
    model_grader_refusal_error_details: str | None = None
    model_grader_parse_error: bool = False
    model_grader_parse_error_details: str | None = None
    model_grader_exceeded_max_tokens_error: bool = False
    model_grader_exceeded_max_tokens_error_details: str | None = None
    endpoint_grader_internal_error: bool = False
    endpoint_grader_internal_error_details: str | None = None
    endpoint_grader_server_error: bool = False
    endpoint_grader_server_error_details: str | None = None
    endpoint_grader_safety_check_error: bool = False
    endpoint_grader_safety_check_error_details: str | None = None
    tool_server_error: bool = Field(default=False, exclude_if=lambda raised: not raised)
    """Cherry: of completions of jobs with tools or a simulated user, so that it is left out elsewhere."""
    tool_server_error_details: str | None = Field(default=None, exclude_if=lambda told: told is None)
    user_simulator_error: bool = Field(default=False, exclude_if=lambda raised: not raised)
    user_simulator_error_details: str | None = Field(default=None, exclude_if=lambda told: told is None)

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, grade: Grade) -> Errors:
        """Flags of the grade's own failure and of those of its parts."""
        raised: dict[str, Any] = {}
        for failure in _failures(grade):
            raised[failure.kind.value] = True
            raised.setdefault(f"{failure.kind.value}_details", failure.message)
            if failure.kind is FailureKind.PYTHON_SERVER:
                raised.setdefault("python_grader_server_error_type", "sandbox_error")
        return cls(**raised)


class RunMetadata(BaseModel):
    name: str
    type: str
    errors: Errors
    execution_time: float
    """Seconds."""
    scores: dict[str, float]
    """Of every named part: sub-graders, and what they are made of."""
    token_usage: int | None
    """Of all judge models together; null if none was asked."""
    sampled_model_name: str | None
    """The judge model, where one was asked."""


class UsageOut(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int

    @classmethod
    def of(cls, usage: TokenUsage) -> UsageOut:
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
        )


class GraderRunOut(BaseModel):
    """How an answer was graded. A reward of 0 may be a failed grading: `metadata.errors` says so."""

    reward: float
    metadata: RunMetadata
    sub_rewards: dict[str, float]
    """Of each grader of a multi."""
    model_grader_token_usage_per_model: dict[str, UsageOut]
    reason: str = Field(
        default="",
        description="Cherry: what the grader says of its value.",
        exclude_if=lambda value: not value,
        json_schema_extra={"x-cherry": True},
    )

    results: list[GraderRunOut] | None = Field(
        default=None,
        description="Cherry: of several answers, how each was graded, in their order; beside it stand the"
        " mean reward and what all have cost.",
        exclude_if=lambda value: value is None,
        json_schema_extra={"x-cherry": True},
    )

    @classmethod
    def of_several(cls, spec: GraderSpec, grades: Sequence[Grade]) -> GraderRunOut:
        """How several answers were graded."""
        values = [grade.value for grade in grades if grade.value is not None]
        failures = {str(number): grade.failure for number, grade in enumerate(grades) if grade.failure}
        whole = Grade(
            math.fsum(values) / len(values) if values else 0.0,
            part_failures=failures,
            seconds=math.fsum(grade.seconds for grade in grades),
            usage=add_usages(grade.usage for grade in grades),
        )
        return cls.of(spec, whole).model_copy(
            update={"sub_rewards": {}, "results": [cls.of(spec, grade) for grade in grades]}
        )

    @classmethod
    def of(cls, spec: GraderSpec, grade: Grade) -> GraderRunOut:
        usage = {model: UsageOut.of(used) for model, used in grade.usage.items()}
        return cls(
            reward=grade.value if grade.value is not None else 0.0,
            metadata=RunMetadata(
                name=spec.name,
                type=spec.type,
                errors=Errors.of(grade),
                execution_time=grade.seconds,
                scores=_finite(grade.parts),
                token_usage=sum(each.total_tokens for each in usage.values()) if usage else None,
                sampled_model_name=next(iter(usage)) if len(usage) == 1 else None,
            ),
            sub_rewards=_sub_rewards(spec, grade),
            model_grader_token_usage_per_model=usage,
            reason=grade.reason,
        )


def _failures(grade: Grade) -> Iterator[Failure]:
    yield from grade.part_failures.values()
    if grade.failure is not None:
        yield grade.failure


def _sub_rewards(spec: GraderSpec, grade: Grade) -> dict[str, float]:
    """Each sub-grader's value, 0 where it failed; nothing if this is no multi."""
    if not isinstance(spec, MultiSpec):
        return {}
    return {key: grade.parts.get(key, 0.0) for key in spec.subgraders}


def _finite(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in parts.items() if math.isfinite(value)}
