"""The training method of a request: which one, its hyperparameters, its grader."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from app.wire import Wire
from methods.algorithms import Aggregation, AlgorithmName

MAX_STEPS = 1_000_000

Auto = Annotated[Literal["auto"], Tag("~auto")]


def _auto_or_number(value: Any) -> str:
    return "~auto" if isinstance(value, str) else "~number"


def _named_block(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"~{kind}" if kind in ("supervised", "dpo", "reinforcement") else "~unknown"


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

AutoBeta = Annotated[
    Auto | Annotated[float, Field(gt=0, le=2), Tag("~number")], Discriminator(_auto_or_number)
]

Adapter = Annotated[
    Literal["lora", "full"] | None,
    Field(description="Cherry: train a low-rank adapter, or every weight."),
]
LoraRank = Annotated[int | None, Field(ge=1, le=512, description="Cherry: rank of the adapter.")]
LearningRate = Annotated[
    float | None,
    Field(gt=0, le=1, description="Cherry: peak rate of AdamW; learning_rate_multiplier is unused."),
]
GradientCheckpointing = Annotated[
    bool | None, Field(description="Cherry: less memory for about a third more time.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    Field(description="Cherry: arithmetic of the model; trained weights are fp32 always."),
]


class AutoHyperparameters(Wire):
    """null asks for the default, as leaving a name out does."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}


class SupervisedHyperparameters(AutoHyperparameters):
    """OpenAI's hyperparameters of a supervised job, and Cherry's beside them (docs/methods.md)."""

    batch_size: AutoBatch = "auto"
    learning_rate_multiplier: AutoRate = "auto"
    n_epochs: AutoEpochs = "auto"

    adapter: Adapter = None
    lora_rank: LoraRank = None
    learning_rate: LearningRate = None
    gradient_checkpointing: GradientCheckpointing = None
    dtype: Dtype = None


class DpoHyperparameters(SupervisedHyperparameters):
    beta: AutoBeta = "auto"


class Hyperparameters(AutoHyperparameters):
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
    adapter: Adapter = None
    lora_rank: LoraRank = None
    learning_rate: LearningRate = None
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
    gradient_checkpointing: GradientCheckpointing = None
    dtype: Dtype = None
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


class Supervised(Wire):
    hyperparameters: SupervisedHyperparameters | None = None


class Dpo(Wire):
    hyperparameters: DpoHyperparameters | None = None


class ReinforcementMethod(Wire):
    """Blocks of other methods may be present, as the official client sends them; they are not read."""

    type: Literal["reinforcement"]
    reinforcement: Reinforcement
    supervised: Any = None
    dpo: Any = None


class SupervisedMethod(Wire):
    type: Literal["supervised"]
    supervised: Supervised | None = None
    dpo: Any = None
    reinforcement: Any = None


class DpoMethod(Wire):
    type: Literal["dpo"]
    dpo: Dpo | None = None
    supervised: Any = None
    reinforcement: Any = None


class UnknownMethod(Wire):
    """What names no method of ours: it fails on its type."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Any = None
    dpo: Any = None
    reinforcement: Any = None


Method = Annotated[
    Annotated[ReinforcementMethod, Tag("~reinforcement")]
    | Annotated[SupervisedMethod, Tag("~supervised")]
    | Annotated[DpoMethod, Tag("~dpo")]
    | Annotated[UnknownMethod, Tag("~unknown")],
    Discriminator(_named_block),
]
