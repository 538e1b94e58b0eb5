"""Evals, their runs and output items on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, Self, TypeVar, cast

from pydantic import BaseModel, Field

from app.evals import criteria
from app.evals.models import Eval, EvalOutputItem, EvalRun, Status
from app.pagination import HasId
from app.wire import Metadata, Wire

MAX_CRITERIA = 64
"""Criteria of one eval. Chosen, not measured."""
MAX_NAME = 256

Name = Field(default=None, min_length=1, max_length=MAX_NAME)
Item = TypeVar("Item")


class CustomConfig(Wire):
    """Rows of the form that `item_schema` says."""

    type: Literal["custom"]
    item_schema: dict[str, Any]
    include_sample_schema: bool = False


class LogsConfig(Wire):
    """Stored completions or responses that carry these pairs."""

    type: Literal["logs", "stored_completions"]
    metadata: Metadata | None = None


class EvalCreate(Wire):
    """What answers are judged by."""

    data_source_config: dict[str, Any] = Field(
        description="`custom` with an `item_schema`, `logs` or `stored_completions` with `metadata`."
    )
    testing_criteria: list[dict[str, Any]] = Field(
        min_length=1, max_length=MAX_CRITERIA, description="Graders of any kind; an answer must pass each."
    )
    name: str | None = Name
    metadata: Metadata | None = None


class EvalUpdate(Wire):
    """What can be changed of an eval."""

    name: str | None = Name
    metadata: Metadata | None = None


class RunCreate(Wire):
    """What is to be judged."""

    data_source: dict[str, Any] = Field(description="`jsonl`, `completions` or `responses` (docs/evals.md).")
    name: str | None = Name
    metadata: Metadata | None = None


class EvalOut(BaseModel):
    object: Literal["eval"] = "eval"
    id: str
    name: str
    created_at: int
    metadata: dict[str, str] | None
    data_source_config: dict[str, Any]
    testing_criteria: list[dict[str, Any]] = Field(description="As they were given; `id` is ours.")

    @classmethod
    def of(cls, row: Eval) -> EvalOut:
        return cls(
            id=row.id,
            name=row.name,
            created_at=int(row.created_at.timestamp()),
            metadata=row.meta,
            data_source_config=row.data_source_config,
            testing_criteria=[criteria.shown(one) for one in row.testing_criteria],
        )


class ApiErrorOut(BaseModel):
    """Empty texts where there is no error: OpenAI's document lets none of the two be null."""

    code: str = ""
    message: str = ""


class ResultCounts(BaseModel):
    """Items that were judged, by what they came to."""

    total: int
    errored: int
    failed: int
    passed: int


class ModelUsage(BaseModel):
    model_name: str
    invocation_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class CriterionResults(BaseModel):
    """What one criterion, named by its `id`, said; an answer that it could not judge is in neither number."""

    testing_criteria: str
    passed: int
    failed: int


class RunProgress(BaseModel):
    """How many items are judged, of how many; `total` is null until the data was read."""

    done: int
    total: int | None


class RunOut(BaseModel):
    """A run. Its counts grow while it is in progress."""

    object: Literal["eval.run"] = "eval.run"
    id: str
    eval_id: str
    status: Status
    model: str = Field(description="Who answers; empty where answers are given.")
    name: str
    created_at: int
    report_url: str
    result_counts: ResultCounts
    per_model_usage: list[ModelUsage]
    per_testing_criteria_results: list[CriterionResults]
    data_source: dict[str, Any]
    metadata: dict[str, str] | None
    error: ApiErrorOut
    progress: RunProgress = Field(json_schema_extra={"x-cherry": True})

    @classmethod
    def of(cls, run: EvalRun, base_url: str) -> RunOut:
        return cls(
            id=run.id,
            eval_id=run.eval_id,
            status=cast(Status, run.status),
            model=run.model,
            name=run.name,
            created_at=int(run.created_at.timestamp()),
            report_url=f"{base_url}/dashboard/evals/{run.eval_id}/runs/{run.id}",
            result_counts=ResultCounts(**run.result_counts),
            per_model_usage=[ModelUsage(**one) for one in run.per_model_usage],
            per_testing_criteria_results=[CriterionResults(**x) for x in run.per_testing_criteria_results],
            data_source=run.data_source,
            metadata=run.meta,
            error=ApiErrorOut(**run.error) if run.error else ApiErrorOut(),
            progress=RunProgress(done=run.result_counts["total"], total=run.total),
        )


class SampleMessage(BaseModel):
    role: str
    content: str


class SampleOutput(BaseModel):
    role: str
    content: str = ""
    tool_calls: list[dict[str, Any]] | None = Field(default=None, exclude_if=lambda value: value is None)


class SampleUsage(BaseModel):
    total_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class SampleOut(BaseModel):
    """What was asked and answered. Numbers of sampling are 0 where none was asked for, or nothing sampled."""

    input: list[SampleMessage] = Field(default_factory=list)
    output: list[SampleOutput] = Field(default_factory=list)
    finish_reason: str = ""
    model: str = ""
    usage: SampleUsage = SampleUsage()
    error: ApiErrorOut = ApiErrorOut()
    temperature: float = 0.0
    max_completion_tokens: int = 0
    top_p: float = 0.0
    seed: int = 0


class ResultOut(BaseModel):
    """What one criterion said of one answer; `error` where it could not judge it, and the score is 0 then."""

    name: str = Field(description="The criterion's `id`.")
    type: str
    score: float
    passed: bool
    sample: dict[str, Any] | None = None
    reason: str | None = Field(
        default=None, exclude_if=lambda value: value is None, json_schema_extra={"x-cherry": True}
    )
    error: ApiErrorOut | None = Field(
        default=None, exclude_if=lambda value: value is None, json_schema_extra={"x-cherry": True}
    )


class OutputItemOut(BaseModel):
    object: Literal["eval.run.output_item"] = "eval.run.output_item"
    id: str
    run_id: str
    eval_id: str
    created_at: int
    status: Literal["pass", "fail", "error"]
    datasource_item_id: int
    datasource_item: dict[str, Any]
    results: list[ResultOut]
    sample: SampleOut

    @classmethod
    def of(cls, item: EvalOutputItem, run: EvalRun) -> OutputItemOut:
        return cls(
            id=item.id,
            run_id=item.run_id,
            eval_id=run.eval_id,
            created_at=int(item.created_at.timestamp()),
            status=cast(Literal["pass", "fail", "error"], item.status),
            datasource_item_id=item.datasource_item_id,
            datasource_item=item.datasource_item,
            results=[ResultOut(**one) for one in item.results],
            sample=SampleOut(**{"model": run.model, **(item.sample or {})}),
        )


class _Listed(BaseModel, Generic[Item]):
    """A page. Where it is empty, its ends are empty texts."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def holding(cls, data: Sequence[Item], has_more: bool) -> Self:
        ids = [cast(HasId, one).id for one in data] or [""]
        return cls(data=list(data), first_id=ids[0], last_id=ids[-1], has_more=has_more)


class EvalList(_Listed[EvalOut]):
    pass


class RunList(_Listed[RunOut]):
    pass


class OutputItemList(_Listed[OutputItemOut]):
    pass


class EvalDeleted(BaseModel):
    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: Literal[True] = True
    eval_id: str


class RunDeleted(BaseModel):
    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: Literal[True] = True
    run_id: str
