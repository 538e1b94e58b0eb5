"""What every run is made of, whatever its method. No torch here, so that the API can build a config."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from methods import auto
from methods.hyperparameters import Hyperparameter
from methods.model_files.precision import BasePrecision, refusal

MAX_STEPS = 1_000_000
OF_PRECISION = {"base_precision", "adapter", "dtype", "sharding"}
"""Fields that a base's precision has to go with."""


class RunConfig(BaseModel):
    """The fields that mean the same in each method's config."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Name of the base model, for people; the weights come from `model_path`."""
    model_path: str
    """Folder of the base model: safetensors weights, config.json and tokenizer."""
    seed: int = Field(ge=0, le=2**31 - 1)
    """Every random number of the run follows from it."""

    n_epochs: Annotated[
        int,
        Field(ge=1, le=50),
        Hyperparameter(auto.n_epochs, "makes about 40 steps (1 to 50 epochs)", is_openais=True),
    ]
    """Passes over the training rows."""
    adapter: Annotated[Literal["lora", "full"], Hyperparameter()] = "lora"
    """Train a low-rank adapter, or every weight."""
    lora_rank: Annotated[int, Field(ge=1, le=512), Hyperparameter(of_adapter=True)] = 16
    """Rank of the adapter."""
    lora_alpha: Annotated[float, Field(gt=0), Hyperparameter(auto.lora_alpha, methods=())] = 32.0
    """The adapter's output is multiplied by this over its rank."""
    learning_rate: Annotated[
        float,
        Field(gt=0, le=1),
        Hyperparameter(auto.learning_rate, "by the model's width, x `learning_rate_multiplier`"),
    ]
    """Peak rate of AdamW; learning_rate_multiplier is unused. It is reached after the warm-up."""
    warmup_steps: Annotated[
        int,
        Field(ge=0, le=MAX_STEPS),
        Hyperparameter(auto.warmup_steps, "0", methods=("reinforcement",)),
    ] = 0
    """Steps over which the rate rises from 0."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients whose common norm is larger are scaled down to it."""
    gradient_checkpointing: Annotated[
        bool | Literal["auto"],
        Hyperparameter(left_out="`auto`: on a GPU where few tokens would share a pass without it, else off"),
    ] = "auto"
    """Less memory for about a third more time. Activations are computed again in the backward pass."""
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Hyperparameter(left_out="`auto`: fp32 on CPU, the model's own on a GPU"),
    ] = "auto"
    """Arithmetic of the model; trained weights are fp32 always."""
    deterministic: Annotated[bool, Hyperparameter()] = False
    """Same bits from the same run on the same GPU, with slower operations. A run that needs one without a
    deterministic form fails and names it; on a CPU runs are so in any case."""
    base_precision: Annotated[
        BasePrecision,
        Hyperparameter(left_out="`auto`: the base is held in the dtype of the arithmetic", of_adapter=True),
    ] = "auto"
    """Bits of the frozen base's numbers. `int8` and `nf4` are quantised by bitsandbytes: the reference, the
    sampler's base and the trainer's are then the same quantised one; `bf16` also computes in bf16."""
    micro_batch_tokens: Annotated[
        Annotated[int, Field(ge=64, le=1_048_576)] | Literal["auto"],
        Hyperparameter(
            left_out="`auto`: 16,384 on a CPU, on a GPU at most that and what its free memory holds"
        ),
    ] = "auto"
    """Most tokens in one forward and backward pass. It bounds memory and changes no result."""
    eval_interval: Annotated[
        int,
        Field(ge=1, le=MAX_STEPS),
        Hyperparameter(
            auto.eval_interval,
            "is one epoch but between 5 and 25 steps",
            methods=("reinforcement",),
            is_openais=True,
        ),
    ]
    """Steps between two validations; each also makes a checkpoint."""
    kl_probe_size: Annotated[
        int,
        Field(ge=1, le=4096),
        Hyperparameter(
            auto.kl_probe_size,
            "a 48th of the completions, or examples, between two checkpoints, from 8 to 64",
        ),
    ] = 64
    """Most prompts in the fixed probe set. On it each checkpoint's exact KL is measured."""
    kl_probe_samples: Annotated[
        int, Field(ge=1, le=64), Hyperparameter(auto.kl_probe_samples, f"{auto.PROBE_SAMPLES}")
    ] = 1
    """Most answers to each prompt of the probe set. No more are drawn than make the KL's standard error a
    twentieth of it, or 0.005 nats per token."""
    checkpoints_kept: int = Field(default=3, ge=1)
    """Checkpoints whose files are kept: the best, or in methods without a choice the newest."""
    save_state_every: int = Field(default=10, ge=1)
    """Steps between two saved training states, from which a killed run goes on."""
    origin_path: str | None = None
    """Folder of the model that a tuned base was tuned from in the first place; the KL to it is told as well.
    None: the base is nobody's work here, or its own is gone."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the run computes; auto takes a GPU if there is one."""

    @model_validator(mode="after")
    def _precision_fits(self) -> Self:
        if (found := refusal(self.model_dump(include=OF_PRECISION))) is not None:
            raise PydanticCustomError("base_precision", "{why}", {"why": found.message})
        return self


LEAST_MULTIPLIER = 1e-6
"""A rate that is so many times smaller than that of "auto" trains nothing; far below, it would round
to 0. Chosen, not measured.
"""


class RequestOnly(BaseModel):
    """Hyperparameters that a run's config does not keep: they change what the rules make of others."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    learning_rate_multiplier: Annotated[
        float, Field(ge=LEAST_MULTIPLIER, le=1000), Hyperparameter(lambda _: 1.0, "is 1", is_openais=True)
    ] = 1.0
    """Multiplies the learning rate that follows from the model's width."""
    compute_multiplier: Annotated[
        float,
        Field(gt=0.00001, le=10),
        Hyperparameter(lambda _: 1.0, "is 1", methods=("reinforcement",), is_openais=True),
    ] = 1.0
    """Multiplies the completions per prompt."""
    reasoning_effort: Annotated[
        Literal["default", "low", "medium", "high"],
        Hyperparameter(methods=("reinforcement",), is_openais=True),
    ] = "default"
    """How much a model that thinks shall think. It sets the variable that the model's chat template has for
    it; where that has none, a budget of thoughts (`max_thinking_tokens`)."""
