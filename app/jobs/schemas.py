"""Fine-tuning jobs on the wire."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import AliasChoices, BaseModel, Field

from app.grading.headers import masked
from app.jobs.integrations import OPENAIS, Integration
from app.jobs.methods import Method
from app.jobs.models import Job, Status
from app.pagination import Listed, Page
from app.tools.service import masked as masked_tools
from app.wire import Metadata, Wire
from methods.resolve import shown_at_top, shown_training, shown_tuning

MAX_SEED = 2**31 - 1


class Resources(Wire):
    """Exactly one of the two."""

    gpus: int | None = Field(default=None, ge=1, le=64, description="NVIDIA GPUs, one process on each.")
    processes: int | None = Field(default=None, ge=1, le=64, description="Processes on the CPU.")


class JobCreate(Wire):
    """What starts a job."""

    model: str = Field(min_length=1, max_length=256)
    training_file: str = Field(min_length=1, max_length=256)
    validation_file: str | None = Field(default=None, min_length=1, max_length=256)
    suffix: str | None = Field(default=None, min_length=1, max_length=64)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    metadata: Metadata | None = None
    integrations: list[Integration] | None = Field(default=None, max_length=5)
    method: Method | None = None
    hyperparameters: Any = Field(
        default=None,
        description="Deprecated by OpenAI, for supervised jobs only: read if there is no `method`.",
    )
    canary_file: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Cherry: a file of texts apart from the task; the loss on them shows what is forgotten.",
        json_schema_extra={"x-cherry": True},
    )
    resources: Resources | None = Field(
        default=None,
        description="Cherry: what the training runs on.",
        json_schema_extra={"x-cherry": True},
    )
    training_type: Any = Field(
        default=None,
        validation_alias=AliasChoices("trainingType", "training_type"),
        description="Azure's: where it trains. Accepted and not read.",
        json_schema_extra={"x-cherry": True},
    )


class JobErrorOut(BaseModel):
    code: str
    message: str
    param: str | None


class JobOut(BaseModel):
    """A fine-tuning job, in the shape that every client accepts (OpenAI's, with no null blocks)."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    id: str
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Status = Field(description="`paused` is not in OpenAI's schema: CHERRY_REPORT_PAUSED_AS.")
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: JobErrorOut | None
    seed: int
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    """Of supervised jobs only; those of other methods are in `method`."""
    method: dict[str, Any]
    integrations: list[Any] = Field(default_factory=list)
    other_integrations: list[Any] = Field(
        default_factory=list,
        description="Cherry: those of a type that OpenAI does not know, as requested; left out otherwise.",
        exclude_if=lambda value: not value,
        json_schema_extra={"x-cherry": True},
    )
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    usage_metrics: dict[str, Any] | None = None
    """Cherry: {"training_seconds", "grader_tokens": {model: ...}} so far; null before the first step."""
    shared_with_openai: Literal[False] = False
    eval_id: str | None
    """The eval that a reinforcement job made: each of its validations is a run of it."""
    canary_file: str | None = Field(
        default=None,
        description="Cherry: as requested; left out otherwise.",
        exclude_if=lambda value: value is None,
        json_schema_extra={"x-cherry": True},
    )
    resources: dict[str, int] | None = Field(
        default=None,
        description="Cherry: as requested; left out otherwise.",
        exclude_if=lambda value: value is None,
        json_schema_extra={"x-cherry": True},
    )

    verdict: dict[str, Any] | None = Field(
        default=None,
        description="Cherry: whether the result is better than the base, on which rows, and how sure it is.",
        exclude_if=lambda value: value is None,
        json_schema_extra={"x-cherry": True},
    )

    @classmethod
    def of(cls, job: Job, organization_id: str, *, paused_as: Status) -> JobOut:
        return cls(
            id=job.id,
            created_at=int(job.created_at.timestamp()),
            finished_at=int(job.finished_at.timestamp()) if job.finished_at else None,
            estimated_finish=int(job.estimated_finish.timestamp()) if job.estimated_finish else None,
            model=job.model,
            fine_tuned_model=job.fine_tuned_model,
            organization_id=organization_id,
            status=paused_as if job.status == "paused" else cast(Status, job.status),
            training_file=job.training_file,
            validation_file=job.validation_file,
            canary_file=job.canary_file,
            result_files=job.result_files,
            trained_tokens=job.trained_tokens,
            error=JobErrorOut(**job.error) if job.error else None,
            seed=job.seed,
            hyperparameters=shown_at_top(job.method, job.config),
            method=_method_out(job),
            integrations=[one for one in job.integrations or [] if one["type"] == OPENAIS],
            other_integrations=[one for one in job.integrations or [] if one["type"] != OPENAIS],
            metadata=job.meta,
            user_provided_suffix=job.suffix,
            usage_metrics=job.usage_metrics,
            eval_id=job.eval_id,
            resources=job.resources,
            verdict=job.verdict,
        )


class JobList(Listed[JobOut]):
    @classmethod
    def of(cls, page: Page[Job], organization_id: str, *, paused_as: Status) -> JobList:
        data = [JobOut.of(job, organization_id, paused_as=paused_as) for job in page.rows]
        return cls.holding(data, page.has_more)


def _method_out(job: Job) -> dict[str, Any]:
    """The method as requested; "auto" gives way to numbers once they are known."""
    kind = job.method["type"]
    if kind != "reinforcement":
        requested = job.method[kind]["hyperparameters"]
        return {"type": kind, kind: {"hyperparameters": shown_tuning(kind, requested, job.config)}}
    block = job.method["reinforcement"]
    shown = shown_training(block["hyperparameters"], job.config)
    graders = {name: masked(block[name]) for name in ("grader", "gold_grader") if name in block}
    tools = {"tools": masked_tools(block["tools"])} if "tools" in block else {}
    return {
        "type": "reinforcement",
        "reinforcement": {**block, **graders, **tools, "hyperparameters": shown},
    }
