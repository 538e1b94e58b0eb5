"""TuneConfig: everything that defines one supervised or dpo run. No torch here: the API builds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from methods.train_config import TrainConfig

TuneMethod = Literal["supervised", "dpo"]
SHARED = (
    "model",
    "model_path",
    "seed",
    "n_epochs",
    "learning_rate",
    "adapter",
    "lora_rank",
    "lora_alpha",
    "gradient_checkpointing",
    "dtype",
    "micro_batch_tokens",
    "kl_probe_size",
    "checkpoints_kept",
    "eval_interval",
    "device",
)
"""Fields that mean the same in a TrainConfig."""


class TuneConfig(BaseModel):
    """One fully resolved run that learns from written answers: no "auto" is left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: TuneMethod
    model: str
    """Name of the base model, for people; the weights come from `model_path`."""
    model_path: str
    """Folder of the base model: safetensors weights, config.json and tokenizer."""
    seed: int = Field(ge=0, le=2**31 - 1)
    """The order of the examples and the adapter's first weights follow from it."""

    n_epochs: int = Field(ge=1, le=50)
    """Passes over the training examples."""
    batch_size: int = Field(ge=1, le=256)
    """Examples in one update; the last update of an epoch may have fewer."""
    eval_interval: int = Field(ge=1)
    """Steps of one epoch: after each comes a full validation and a checkpoint."""
    learning_rate: float = Field(gt=0, le=1)
    """Peak rate of AdamW: it rises over `warmup_steps`, then falls linearly to 0 at the end."""
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.1, gt=0, le=2)
    """dpo: how firmly the policy is held to its start; supervised runs do not read it."""

    adapter: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, or every weight."""
    lora_rank: int = Field(default=16, ge=1, le=512)
    lora_alpha: float = Field(default=32.0, gt=0)
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the model; trained weights are always held in fp32."""
    micro_batch_tokens: int = Field(default=16_384, ge=64)
    """About how many tokens share a forward and backward pass; bounds memory."""

    valid_every: int = Field(default=10, ge=1)
    """Steps between two looks at a batch of the validation examples, inside an epoch."""
    kl_probe_size: int = Field(default=64, ge=1)
    """Most prompts in the fixed probe set on which each checkpoint's exact KL is measured."""
    probe_tokens: int = Field(ge=1)
    """Where a completion of the probe is cut."""
    checkpoints_kept: int = Field(default=3, ge=1)
    """Newest checkpoints whose files are kept."""
    save_state_every: int = Field(default=20, ge=1)
    """Steps between two saved training states, from which a killed run goes on."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Literal[1] = 1
    """One: these methods are not distributed."""

    def total_steps(self, n_examples: int) -> int:
        """Updates in the run."""
        return self.n_epochs * -(-n_examples // self.batch_size)

    def rate(self, step: int) -> float:
        """Share of the peak rate that update `step` has, from 1 on."""
        total = self.n_epochs * self.eval_interval
        if step <= self.warmup_steps:
            return step / (self.warmup_steps + 1)
        return max(0.0, (total - step + 1) / (total - self.warmup_steps))

    def as_engine_config(self) -> TrainConfig:
        """What the engine needs to load, measure and save the same model. Nothing of it trains."""
        return TrainConfig(
            prompts_per_step=self.batch_size,
            group_size=2,
            max_completion_tokens=self.probe_tokens,
            **{name: getattr(self, name) for name in SHARED},
        )


def is_tuned(config: Mapping[str, Any]) -> bool:
    """Whether a job's stored config is of a supervised or dpo run."""
    return "method" in config


def read_config(stored: Mapping[str, Any]) -> TrainConfig | TuneConfig:
    """A job's config as its method has it."""
    return TuneConfig.model_validate(stored) if is_tuned(stored) else TrainConfig.model_validate(stored)
