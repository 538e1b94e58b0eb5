"""TrainConfig: everything that defines one run. No torch here, so that the API can build one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from methods.algorithms import RECIPES, Aggregation, AlgorithmName, Recipe


class TrainConfig(BaseModel):
    """One fully resolved run: no "auto" is left, so a run can be repeated from this and its data alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Name of the base model, for people; the weights come from `model_path`."""
    model_path: str
    """Folder of the base model: safetensors weights, config.json and tokenizer."""
    algorithm: AlgorithmName = "grpo"
    """docs/algorithms.md. It also decides the defaults of the fields below that it names."""
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
    stop: tuple[str, ...] = Field(default=(), max_length=4)
    """Texts that end a completion; they are not part of it as graders see it."""

    response_format: dict[str, Any] | None = None
    """What every completion is held to, in OpenAI's form; {"type": "json_schema", ...} or {"type":
    "json_object"}. None: plain text."""

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
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """Lower bound of the ratio between the policy now and before the step's updates: 1 - clip_low."""
    clip_high: float = Field(default=0.27, ge=0)
    """Upper bound: 1 + clip_high (clip-higher, DAPO, arXiv:2503.14476)."""
    importance_cap: float = Field(default=2.0, ge=1)
    """Most that a token weighs for being likelier before the update than when it was sampled."""
    updates_per_step: int = Field(default=1, ge=1, le=16)
    """Optimiser updates made with the same rollouts."""
    aggregation: Aggregation = "token"
    """Mean over all tokens of the step; over completions of each one's mean; or each one's sum over
    max_completion_tokens."""
    scale_advantage: bool = True
    """Divide advantages by their standard deviation: the group's where the group is the baseline, as in the
    GRPO paper; the whole step's for rloo, reinforce_pp and ppo."""
    sampling_rounds: int = Field(default=1, ge=1, le=10)
    """Most times a step draws prompts to fill up on groups with spread (dynamic sampling, DAPO)."""
    overlong_buffer: float = Field(default=0.0, ge=0, le=1)
    """Last share of max_completion_tokens in which the reward falls linearly (overlong punishment, DAPO)."""
    overlong_penalty: float = Field(default=1.0, ge=0)
    """What a completion of full length loses where overlong_buffer is above 0, in grader units."""
    mask_truncated: bool = False
    """Leave completions that were cut out of the gradient (overlong filtering, DAPO)."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    """PPO: generalised advantage estimation, arXiv:1506.02438, undiscounted; 1: return minus value."""
    value_learning_rate: float = Field(default=0.1, gt=0, le=1)
    """PPO: AdamW's rate for the value head; about how far an update can move a value."""
    value_clip: float = Field(default=0.2, gt=0)
    """PPO: how far a value may move from its old one before its loss stops counting. Values are in standard
    deviations of the step's rewards."""
    async_steps: int = Field(default=0, ge=0, le=1)
    """1 samples the next step while this one is updated, with weights one update older."""

    micro_batch_tokens: int = Field(default=16_384, ge=64)
    """Most tokens in one forward and backward pass; bounds memory, changes no result."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the model; trained weights are always held in fp32. auto: fp32 on CPU, the model's own on
    a GPU."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that share each step; on GPUs, one for each."""
    sharding: Literal["none", "fsdp"] = "none"
    """Whole weights in every process, or FSDP2."""

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
    grade_concurrency: int = Field(default=8, ge=1, le=512)
    """Grader calls under way at the same time, in each process."""
    grade_seconds: float = Field(default=300.0, gt=0)
    """Longest that one grading may take: longer than the grader's own limits, for one that hangs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_algorithm(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        recipe = RECIPES.get(given.get("algorithm", "grpo"))
        return {**(recipe.defaults if recipe else {}), **given}

    @property
    def recipe(self) -> Recipe:
        """What the algorithm is made of."""
        return RECIPES[self.algorithm]

    @property
    def has_kl_in_reward(self) -> bool:
        """Whether each token's KL is taken off the rewards before they are compared."""
        return self.recipe.kl == "reward" and self.beta > 0

    def total_steps(self, n_rows: int) -> int:
        """Updates in the run: every epoch visits every row once; its last step may be smaller."""
        per_epoch = -(-n_rows // self.prompts_per_step)
        return self.n_epochs * per_epoch
