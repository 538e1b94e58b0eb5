"""TrainConfig: everything that defines one run. No torch here, so that the API can build one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """One fully resolved run: no "auto" is left, so a run can be repeated from this and its data alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Name of the base model, for people; the weights come from `model_path`."""
    model_path: str
    """Folder of the base model: safetensors weights, config.json and tokenizer."""
    algorithm: Literal["grpo"] = "grpo"
    """Group Relative Policy Optimisation, Shao et al. 2024, arXiv:2402.03300."""
    seed: int = Field(ge=0, le=2**31 - 1)
    """Every random number of the run follows from it."""

    n_epochs: int = Field(ge=1, le=50)
    """Passes over the training rows."""
    prompts_per_step: int = Field(ge=1, le=256)
    """P: different prompts in one update (OpenAI's batch_size)."""
    group_size: int = Field(ge=2, le=256)
    """G: completions sampled for each prompt; their mean reward is the baseline."""
    max_completion_tokens: int = Field(ge=1, le=131_072)
    """A completion is cut here and counts as truncated."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature of training rollouts."""

    adapter: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, or every weight."""
    lora_rank: int = Field(default=16, ge=1, le=512)
    lora_alpha: float = Field(default=32.0, gt=0)
    learning_rate: float = Field(gt=0, le=1)
    """Peak rate of AdamW; constant after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly from 0."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.02, ge=0, le=2)
    """Weight of the KL penalty to the starting policy; 0 still measures the KL."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """Lower clip of the importance ratio: 1 - clip_low."""
    clip_high: float = Field(default=0.27, ge=0)
    """Upper clip of the importance ratio: 1 + clip_high (clip-higher, DAPO, arXiv:2503.14476)."""
    updates_per_step: int = Field(default=1, ge=1, le=16)
    """Optimiser updates made with the same rollouts."""
    scale_advantage: bool = True
    """Divide advantages by the group's standard deviation, as in the GRPO paper."""
    micro_batch_tokens: int = Field(default=16_384, ge=64)
    """Most padded tokens in one forward and backward pass; bounds memory, changes no result."""

    eval_interval: int = Field(ge=1)
    """Steps between two validations; each also makes a checkpoint."""
    eval_samples: int = Field(default=1, ge=1, le=64)
    """Completions per validation row. 1 means greedy; more are sampled at `temperature`."""
    kl_probe_size: int = Field(default=64, ge=1)
    """Most prompts in the fixed probe set on which each checkpoint's exact KL is measured."""
    checkpoints_kept: int = Field(default=3, ge=1)
    """Best checkpoints (by validation reward) whose files are kept."""
    save_state_every: int = Field(default=10, ge=1)
    """Steps between two saved training states, from which a killed run goes on."""

    grade_failure_limit: float = Field(default=0.5, gt=0, le=1)
    """Share of one step's grades that may fail (grader's or data's fault) before the run fails."""
    grade_failure_steps: int = Field(default=3, ge=1)
    """Steps in a row over the limit that fail the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def total_steps(self, n_rows: int) -> int:
        """Updates in the run: every epoch visits every row once; its last step may be smaller."""
        per_epoch = -(-n_rows // self.prompts_per_step)
        return self.n_epochs * per_epoch
