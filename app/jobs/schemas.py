"""Fine-tuning jobs on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.grading.headers import masked
from app.jobs.defaults import shown_hyperparameters
from app.jobs.models import Job, Status
from app.pagination import Page
from workers.algorithms import Aggregation, AlgorithmName

MAX_SEED = 2**31 - 1
MAX_STEPS = 1_000_000

Auto = Annotated[Literal["auto"], Tag("~auto")]


def _auto_or_number(value: Any) -> str:
    return "~auto" if isinstance(value, str) else "~number"


def _named_block(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return "~reinforcement" if kind == "reinforcement" else "~other"


AutoBatch = Annotated[
    Auto | Annotated[int, Field(ge=1, le=256), Tag("~number")], Discriminator(_auto_or_number)
]
AutoEpochs = Annotated[
    Auto | Annotated[int, Field(ge=1, le=50), Tag("~number")], Discriminator(_auto_or_number)
]
AutoInterval = Annotated[
    Auto | Annotated[int, Field(ge=1, le=MAX_STEPS), Tag("~number")], Discriminator(_auto_or_number)
]
AutoSamples = Annotated[
    Auto | Annotated[int, Field(ge=1, le=64), Tag("~number")], Discriminator(_auto_or_number)
]
AutoRate = Annotated[
    Auto | Annotated[float, Field(gt=0, le=1000), Tag("~number")], Discriminator(_auto_or_number)
]
AutoCompute = Annotated[
    Auto | Annotated[float, Field(gt=0.00001, le=10), Tag("~number")], Discriminator(_auto_or_number)
]


class Wire(BaseModel):
    """A request body: no guessing of types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Hyperparameters(Wire):
    """OpenAI's hyperparameters of a reinforcement job, and Cherry's beside them (docs/extensions.md)."""

    batch_size: AutoBatch = "auto"
    learning_rate_multiplier: AutoRate = "auto"
    n_epochs: AutoEpochs = "auto"
    eval_interval: AutoInterval = "auto"
    eval_samples: AutoSamples = "auto"
    compute_multiplier: AutoCompute = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"

    algorithm: AlgorithmName | None = Field(default=None, description="Cherry: the learning algorithm.")
    group_size: int | None = Field(default=None, ge=2, le=256, description="Cherry: completions per prompt.")
    beta: float | None = Field(default=None, ge=0, le=2, description="Cherry: weight of the KL penalty.")
    adapter: Literal["lora", "full"] | None = Field(
        default=None, description="Cherry: train a low-rank adapter, or every weight."
    )
    lora_rank: int | None = Field(default=None, ge=1, le=512, description="Cherry: rank of the adapter.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Cherry: peak rate of AdamW; learning_rate_multiplier is unused.",
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, le=131_072, description="Cherry: where a completion is cut."
    )
    temperature: float | None = Field(
        default=None, gt=0, le=2, description="Cherry: sampling temperature of training rollouts."
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        default=None, max_length=4, description="Cherry: texts that end a completion."
    )
    clip_low: float | None = Field(
        default=None, ge=0, le=1, description="Cherry: the importance ratio is clipped at 1 - clip_low."
    )
    clip_high: float | None = Field(
        default=None, ge=0, description="Cherry: the importance ratio is clipped at 1 + clip_high."
    )
    importance_cap: float | None = Field(
        default=None,
        ge=1,
        description="Cherry: largest weight for what an older policy sampled.",
    )
    updates_per_step: int | None = Field(
        default=None, ge=1, le=16, description="Cherry: updates made with the same rollouts."
    )
    scale_advantage: bool | None = Field(
        default=None, description="Cherry: divide advantages by the group's standard deviation."
    )
    aggregation: Aggregation | None = Field(
        default=None, description="Cherry: how token losses are averaged."
    )
    sampling_rounds: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="Cherry: most times a step draws prompts for groups with spread.",
    )
    overlong_buffer: float | None = Field(
        default=None, ge=0, le=1, description="Cherry: last share of the length in which the reward falls."
    )
    overlong_penalty: float | None = Field(
        default=None, ge=0, description="Cherry: what a completion of full length then loses."
    )
    mask_truncated: bool | None = Field(
        default=None, description="Cherry: leave completions that were cut out of the gradient."
    )
    gae_lambda: float | None = Field(default=None, ge=0, le=1, description="Cherry: ppo's lambda.")
    warmup_steps: int | None = Field(
        default=None, ge=0, le=MAX_STEPS, description="Cherry: steps over which the rate rises from 0."
    )
    async_steps: int | None = Field(
        default=None, ge=0, le=1, description="Cherry: 1 samples the next step during the update of this one."
    )
    gradient_checkpointing: bool | None = Field(
        default=None, description="Cherry: less memory for about a third more time."
    )
    dtype: Literal["auto", "float32", "bfloat16"] | None = Field(
        default=None, description="Cherry: arithmetic of the model; trained weights are fp32 always."
    )
    sharding: Literal["none", "fsdp"] | None = Field(
        default=None, description="Cherry: whole weights in every process, or split over them (FSDP2)."
    )
    grade_failure_limit: float | None = Field(
        default=None, gt=0, le=1, description="Cherry: share of a step's grades that may fail."
    )
    grade_failure_steps: int | None = Field(
        default=None, ge=1, le=1000, description="Cherry: steps in a row over that share which fail the job."
    )
    grade_concurrency: int | None = Field(
        default=None, ge=1, le=512, description="Cherry: gradings under way at the same time."
    )


class Reinforcement(Wire):
    grader: dict[str, Any]
    hyperparameters: Hyperparameters | None = None
    response_format: Any = None


class ReinforcementMethod(Wire):
    """Blocks of other methods may be present, as the official client sends them; they are not read."""

    type: Literal["reinforcement"]
    reinforcement: Reinforcement
    supervised: Any = None
    dpo: Any = None


class OtherMethod(Wire):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Any = None
    dpo: Any = None
    reinforcement: Any = None


Method = Annotated[
    Annotated[ReinforcementMethod, Tag("~reinforcement")] | Annotated[OtherMethod, Tag("~other")],
    Discriminator(_named_block),
]
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


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
    integrations: list[Any] | None = Field(default=None, max_length=5)
    method: Method | None = None
    hyperparameters: Any = None
    """Deprecated by OpenAI and of supervised jobs only: not read."""
    resources: Resources | None = Field(
        default=None,
        description="Cherry: what the training runs on.",
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
    """Of supervised jobs only; a reinforcement job's are in `method`."""
    method: dict[str, Any]
    integrations: list[Any] = Field(default_factory=list)
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    usage_metrics: dict[str, Any] | None = None
    """Cherry: {"training_seconds", "grader_tokens": {model: ...}} so far; null before the first step."""
    shared_with_openai: Literal[False] = False
    eval_id: None = None
    resources: dict[str, int] | None = Field(
        default=None,
        description="Cherry: as requested; left out otherwise.",
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
            result_files=job.result_files,
            trained_tokens=job.trained_tokens,
            error=JobErrorOut(**job.error) if job.error else None,
            seed=job.seed,
            method=_method_out(job),
            metadata=job.meta,
            user_provided_suffix=job.suffix,
            usage_metrics=job.usage_metrics,
            resources=job.resources,
        )


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: Page[Job], organization_id: str, *, paused_as: Status) -> JobList:
        data = [JobOut.of(job, organization_id, paused_as=paused_as) for job in page.rows]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=page.has_more)


def _method_out(job: Job) -> dict[str, Any]:
    """The method as requested; "auto" gives way to numbers once they are known."""
    block = job.method["reinforcement"]
    shown = shown_hyperparameters(block["hyperparameters"], job.config)
    grader = masked(block["grader"])
    return {
        "type": "reinforcement",
        "reinforcement": {**block, "grader": grader, "hyperparameters": shown},
    }
