"""TuneConfig: everything that defines one supervised or dpo run. No torch here: the API builds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from methods import auto
from methods.hyperparameters import Hyperparameter
from methods.run_config import RunConfig
from methods.train_config import TrainConfig

TuneMethod = Literal["supervised", "dpo"]


class TuneConfig(RunConfig):
    """One fully resolved run that learns from written answers: no "auto" is left.

    The rate rises over `warmup_steps`, then falls linearly to 0 at the end; after each epoch, which is
    `eval_interval`, comes a full validation and a checkpoint.
    """

    method: TuneMethod
    """Which of the two."""
    batch_size: Annotated[int, Field(ge=1, le=256), Hyperparameter(auto.batch_size, is_openais=True)]
    """Examples in one update; the last update of an epoch may have fewer."""
    beta: Annotated[
        float, Field(gt=0, le=2), Hyperparameter(auto.dpo_beta, methods=("dpo",), is_openais=True)
    ] = auto.DPO_BETA
    """How firmly a dpo run holds the policy to its start; supervised runs do not read it."""
    valid_every: int = Field(default=10, ge=1)
    """Steps between two looks at a batch of the validation examples, inside an epoch."""
    probe_tokens: Annotated[int, Field(ge=1), Hyperparameter(auto.probe_tokens, methods=())]
    """Where a completion of the probe is cut."""
    save_state_every: int = Field(default=20, ge=1)
    """Steps between two saved training states, from which a killed run goes on."""
    processes: Literal[1] = 1
    """One: these methods are not distributed."""

    def total_steps(self, n_examples: int) -> int:
        """Updates in the run."""
        return self.n_epochs * -(-n_examples // self.batch_size)

    def job_steps(self, n_examples: int) -> int:
        """Updates in a whole job, which is one run."""
        return self.total_steps(n_examples)

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
            **{name: getattr(self, name) for name in RunConfig.model_fields},
        )


def is_tuned(config: Mapping[str, Any]) -> bool:
    """Whether a job's stored config is of a supervised or dpo run."""
    return "method" in config


def read_config(stored: Mapping[str, Any]) -> TrainConfig | TuneConfig:
    """A job's config as its method has it."""
    return TuneConfig.model_validate(stored) if is_tuned(stored) else TrainConfig.model_validate(stored)
