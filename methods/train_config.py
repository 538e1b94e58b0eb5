"""TrainConfig: everything that defines one reinforcement run. No torch here: the API builds one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from methods import auto
from methods.algorithms import RECIPES, Aggregation, AlgorithmName, Recipe
from methods.halving import control_steps, looks_of, rungs, steps_beside, steps_of
from methods.hyperparameters import Hyperparameter
from methods.prices import Prices
from methods.run_config import MAX_STEPS, RunConfig

StopText = Annotated[str, Field(min_length=1, max_length=64)]
TemplateValue = StrictBool | StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=1000)]

NAMED = "named"
"""The type of an environment that the operator has installed."""
MAX_EPISODE_STEPS = 200
"""The most turns that a job may ask for. Chosen, not measured: many times what published jobs ask, 10."""
LEAST_TEMPERATURE = 0.01
"""Logits are divided by the temperature, which below this is greedy but for rounding: two tokens whose logits
differ by 0.1 then differ in probability by a factor of 22,000. Chosen, not measured.
"""


def _greedy_or_warm(value: float | None) -> float | None:
    if value is not None and 0 < value < LEAST_TEMPERATURE:
        raise PydanticCustomError("too_cold", f"0 is greedy, and any other is at least {LEAST_TEMPERATURE}")
    return value


class TrainConfig(RunConfig):
    """One fully resolved run: no "auto" is left, so a run can be repeated from this and its data alone."""

    n_epochs: Annotated[
        int,
        Field(ge=1, le=10_000),
        Hyperparameter(auto.n_epochs, "makes about 40 steps (1 to 50 epochs)", is_openais=True),
    ]
    """Passes over the training rows."""
    algorithm: Annotated[AlgorithmName, Hyperparameter()] = "grpo"
    """The learning algorithm. It also decides the defaults of the fields that docs/algorithms.md names."""
    prompts_per_step: Annotated[
        int,
        Field(ge=1, le=256),
        Hyperparameter(
            auto.prompts_per_step,
            "is 8 prompts for each step (or all rows, if fewer)",
            name="batch_size",
            is_openais=True,
        ),
    ]
    """Different prompts in one update, P."""
    group_size: Annotated[
        int,
        Field(ge=2, le=256),
        Hyperparameter(auto.group_size, "8 x `compute_multiplier`, from 2 to 64"),
    ]
    """Completions per prompt. G: their mean reward is the baseline."""
    max_completion_tokens: Annotated[
        int,
        Field(ge=1, le=131_072),
        Hyperparameter(
            auto.max_completion_tokens,
            "256, for a model that thinks `max_thinking_tokens` or 2,048 more, or the room that the longest"
            " prompt leaves",
        ),
    ]
    """Where a completion is cut. It then counts as truncated."""
    max_thinking_tokens: Annotated[
        int | None,
        Field(ge=0, le=131_072),
        Hyperparameter(
            auto.max_thinking_tokens,
            "no bound, or by `reasoning_effort` a share of `max_completion_tokens` where the template has no"
            " variable for it",
        ),
    ] = None
    """Tokens after which thoughts are closed. The template's closing mark is then given, and the answer goes
    on; 0 closes them at once."""
    template_kwargs: Annotated[
        dict[str, TemplateValue],
        Field(max_length=16),
        Hyperparameter(left_out="what `reasoning_effort` needs"),
    ] = {}  # noqa: RUF012
    """Variables of the model's chat template. A job names only those that the template reads."""
    temperature: Annotated[float, Field(ge=LEAST_TEMPERATURE, le=2), Hyperparameter()] = 1.0
    """Sampling temperature of training rollouts."""
    stop: Annotated[
        tuple[str, ...],
        Field(max_length=4),
        Hyperparameter(left_out="none", wire=list[StopText]),
    ] = ()
    """Texts that end a completion. They are not part of it as graders see it."""

    response_format: dict[str, Any] | None = None
    """What every completion is held to, in OpenAI's form; {"type": "json_schema", ...} or {"type":
    "json_object"}. None: plain text."""

    tools: tuple[str, ...] = ()
    """Names of the functions that the policy may call. Without any, completions have one turn."""
    environment: Literal["user_simulator", "named"] | None = None
    """Who replies: a model to turns that call nothing; an environment of the operator's to every turn. None:
    nobody but tools, so that a turn which calls nothing is the last."""
    max_episode_steps: int | None = Field(default=None, ge=1, le=MAX_EPISODE_STEPS)
    """Most turns of an episode; None where completions have one turn."""

    beta: Annotated[float, Field(ge=0, le=2), Hyperparameter()] = 0.02
    """Weight of the KL penalty. It is to the starting policy; 0 still measures the KL."""
    clip_low: Annotated[float, Field(ge=0, le=1), Hyperparameter()] = 0.2
    """The importance ratio is clipped at 1 - clip_low. It is that of the policy now to the one before the
    step's updates."""
    clip_high: Annotated[float, Field(ge=0), Hyperparameter()] = 0.27
    """The importance ratio is clipped at 1 + clip_high. Higher than below: DAPO, arXiv:2503.14476."""
    importance_cap: Annotated[float, Field(ge=1), Hyperparameter()] = 2.0
    """Largest weight for what an older policy sampled. A token weighs by how much likelier it is before the
    update than when it was sampled."""
    updates_per_step: Annotated[int, Field(ge=1, le=16), Hyperparameter()] = 1
    """Updates made with the same rollouts."""
    aggregation: Annotated[Aggregation, Hyperparameter()] = "token"
    """How token losses are averaged. Over all tokens of the step; over completions of each one's mean; or
    each one's sum over max_completion_tokens."""
    scale_advantage: Annotated[bool, Hyperparameter()] = True
    """Divide advantages by the group's standard deviation. As in the GRPO paper; rloo, reinforce_pp and ppo
    divide by the whole step's."""
    sampling_rounds: Annotated[int, Field(ge=1, le=10), Hyperparameter()] = 1
    """Most times a step draws prompts for groups with spread. More than 1: dynamic sampling, DAPO."""
    overlong_buffer: Annotated[float, Field(ge=0, le=1), Hyperparameter()] = 0.0
    """Last share of the length in which the reward falls. Linearly: overlong punishment, DAPO."""
    overlong_penalty: Annotated[float, Field(ge=0), Hyperparameter()] = 1.0
    """What a completion of full length then loses. In grader units, where overlong_buffer is above 0."""
    mask_truncated: Annotated[bool, Hyperparameter()] = False
    """Leave completions that were cut out of the gradient. Overlong filtering, DAPO."""
    gae_lambda: Annotated[float, Field(ge=0, le=1), Hyperparameter(algorithms=("ppo",))] = 1.0
    """ppo's lambda. Generalised advantage estimation, arXiv:1506.02438; 1 is return minus value."""
    value_learning_rate: float = Field(default=0.1, gt=0, le=1)
    """PPO: AdamW's rate for the value head; about how far an update can move a value."""
    value_clip: float = Field(default=0.2, gt=0)
    """PPO: how far a value may move from its old one before its loss stops counting. Values are in standard
    deviations of the step's rewards."""
    async_steps: Annotated[int, Field(ge=0, le=1), Hyperparameter()] = 0
    """1 samples the next step during the update of this one. With weights one update older."""

    rollouts: Annotated[
        Literal["built_in", "vllm"],
        Hyperparameter(left_out="`vllm` where the operator has a server for the model, and it can"),
    ] = "built_in"
    """Who samples training completions. The sampler of the training process, or a vLLM server
    (docs/vllm.md)."""

    processes: int = Field(default=1, ge=1, le=64)
    """Processes that share each step, or train a seed each; on GPUs, one for each."""
    sharding: Annotated[Literal["none", "fsdp"], Hyperparameter()] = "none"
    """Whole weights in every process, or split over them (FSDP2)."""

    eval_samples: Annotated[
        int,
        Field(ge=1, le=64),
        Hyperparameter(
            auto.eval_samples,
            "takes about a quarter of the completions between two validations, 1 to 8 a row",
            is_openais=True,
        ),
    ] = 1
    """Completions per validation row. They are sampled at `eval_temperature`."""
    eval_temperature: Annotated[
        float | None, Field(ge=0, le=2), AfterValidator(_greedy_or_warm), Hyperparameter(lambda _: 1.0, "1")
    ] = None
    """Temperature of validation, which should be that of use. 0 is greedy, else it is at least 0.01. None, in
    configs of 0.1.0: one completion a row is greedy, several are sampled at `temperature`."""
    validation_split: Annotated[
        float,
        Field(ge=0, le=0.5),
        Hyperparameter(auto.validation_split, "0.2 from 40 rows on, where there is no validation file"),
    ] = 0.0
    """Share of the training rows that is held out for validation. At least 10 rows."""

    max_steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS), Hyperparameter(left_out="no bound")] = None
    """Most updates of the run, whatever the epochs."""
    skip_flat_prompts: Annotated[bool, Hyperparameter(lambda _: True, "true")] = False
    """Whether prompts that teach nothing are visited less. While all its completions have the same reward, a
    prompt is visited after 1, 2, 4, 8, 16 and then every 20 epochs; one visit with different rewards makes it
    due in each epoch again."""
    max_seconds: Annotated[float | None, Field(gt=0), Hyperparameter(left_out="no bound")] = None
    """Most seconds that training may take. Over all attempts."""
    max_sampled_tokens: Annotated[int | None, Field(ge=1), Hyperparameter(left_out="no bound")] = None
    """Most tokens that may be sampled. For training and validation."""
    max_judge_calls: Annotated[int | None, Field(ge=1), Hyperparameter(left_out="no bound")] = None
    """Most calls of graders' models."""
    max_cost: Annotated[float | None, Field(gt=0), Hyperparameter(left_out="no bound")] = None
    """Most that the run may cost, by the table of prices."""
    on_budget: Annotated[Literal["finish", "pause"], Hyperparameter()] = "finish"
    """What a spent budget does. `finish` validates and delivers; `pause` waits for its owner."""
    early_stop: Annotated[bool, Hyperparameter(lambda _: True, "true")] = False
    """Whether the run ends when its evaluations have been level."""
    early_stop_evals: Annotated[int, Field(ge=2, le=1000), Hyperparameter()] = 8
    """Fewest evaluations that must have been level. The newer half of all, where that is more; half as many
    again without any gain so far, half of them where every prompt is solved."""
    allow_flat_reward: Annotated[bool, Hyperparameter(lambda _: False, "false")] = True
    """Whether a run goes on whose first completions all have their group's reward."""

    kl_target: Annotated[
        float, Field(ge=0), Hyperparameter(auto.kl_target, "a number where `beta` is left out too, else 0")
    ] = 0.0
    """Nats per token from the starting policy that an adaptive beta holds. 0 leaves beta as it is."""
    kl_target_share: Annotated[
        float,
        Field(ge=0),
        Hyperparameter(
            auto.kl_target_share, "a number where `beta` and `kl_target` are left out too, else 0"
        ),
    ] = 0.0
    """The same as a multiple of the base's entropy per token. The lower of both counts; 0 leaves it out."""
    guard: Annotated[Literal["off", "warn", "act"], Hyperparameter(lambda _: "act", "`act`")] = "off"
    """What is done about a policy that leaves its start. `warn` only tells."""
    guard_kl: Annotated[float, Field(gt=0), Hyperparameter()] = 2.0
    """Nats per token from the starting policy at which the guard acts."""
    guard_kl_share: Annotated[float, Field(gt=0), Hyperparameter()] = 2.0
    """The same as a multiple of the base's entropy per token. The lower of both counts, from 0.5 on."""
    guard_canary: Annotated[float, Field(gt=0), Hyperparameter()] = 0.75
    """Nats per token that the loss on the canary may rise before the guard acts. In eight sound runs at
    "auto" the largest rise was 0.72; with 0.5 the best of a rare task, a reward of 0.97, gave way to 0.42."""
    guard_rollbacks: Annotated[int, Field(ge=0, le=100), Hyperparameter()] = 3
    """Times that the guard rolls back before it ends the run."""
    n_seeds: Annotated[int, Field(ge=1, le=16), Hyperparameter()] = 1
    """Seeds that are trained in one job. The worse half of them ends at each rung."""
    controls: Annotated[
        tuple[Literal["random_reward"], ...],
        Field(max_length=1),
        Hyperparameter(left_out="none", wire=list[Literal["random_reward"]]),
    ] = ()
    """Short arms that show what is no gain. `random_reward` permutes the grades of each step."""

    eval_seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """What the random numbers of evaluations and of the KL's probe follow from; None: from `seed`. Seeds of
    one job share it, so that they are compared by the same draws."""

    prices: Prices | None = None
    """What `max_cost` counts by, out of the operator's CHERRY_PRICES; None without such a budget."""

    grade_failure_limit: Annotated[
        float,
        Field(gt=0, le=1),
        Hyperparameter(left_out="0.5 (`CHERRY_GRADE_FAILURE_LIMIT`)"),
    ] = 0.5
    """Share of a step's grades that may fail. By the fault of grader or data, before the run fails."""
    grade_failure_steps: Annotated[
        int,
        Field(ge=1, le=1000),
        Hyperparameter(left_out="3 (`CHERRY_GRADE_FAILURE_STEPS`)"),
    ] = 3
    """Steps in a row over that share which fail the job."""
    grade_concurrency: Annotated[
        int,
        Field(ge=1, le=512),
        Hyperparameter(left_out="8; with a judge or an endpoint what that can take, to 32"),
    ] = 8
    """Gradings under way at the same time. In each process."""
    grade_seconds: float = Field(default=300.0, gt=0)
    """Longest that one grading may take: longer than the grader's own limits, for one that hangs."""
    reward_range: tuple[float, float] | None = None
    """The least and the largest value of the grader, in its units; None where it has not said."""
    asks_judge: bool = False
    """Whether the grader asks a model, so that completions that speak to it are watched for."""
    gold_range: tuple[float, float] | None = None
    """The same of the gold grader."""

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

    @property
    def measuring_seed(self) -> int:
        """What the random numbers of evaluations follow from."""
        return self.seed if self.eval_seed is None else self.eval_seed

    @property
    def has_arms(self) -> bool:
        """Whether the job trains more than one run."""
        return self.n_seeds > 1 or bool(self.controls)

    @property
    def trains_seeds_beside(self) -> bool:
        """Whether seeds of the job train side by side, one on each device, as far as its service can."""
        return self.n_seeds > 1 and self.processes > 1 and self.sharding == "none"

    def steps_per_epoch(self, n_rows: int) -> int:
        """Updates of one pass over the rows; the last one may be smaller."""
        return -(-n_rows // self.prompts_per_step)

    def epoch_of(self, step: int, n_rows: int) -> int:
        """The pass over the rows that a step belongs to, from 1; 0 for step 0."""
        return -(-step // self.steps_per_epoch(n_rows))

    def total_steps(self, n_rows: int) -> int:
        """Updates in the run, unless something ends it early: all epochs', at most `max_steps`."""
        return min(self.n_epochs * self.steps_per_epoch(n_rows), self.max_steps or MAX_STEPS)

    def job_steps(self, n_rows: int) -> int:
        """Updates in a whole job: those of all its seeds and controls, unless something ends them early."""
        total, interval = self.total_steps(n_rows), self.eval_interval
        short = len(self.controls) * control_steps(total, interval)
        return steps_of(rungs(total, interval, self.n_seeds)) + short

    def speed_up(self, n_rows: int) -> float:
        """How many times as fast its devices train the job as one would, were nothing lost between them.

        Seeds side by side leave devices idle when there are fewer of them than devices.
        """
        if not self.trains_seeds_beside:
            return self.processes
        total, steps = self.total_steps(n_rows), self.job_steps(n_rows)
        plan = rungs(total, self.eval_interval, self.n_seeds)
        return steps / (steps - steps_of(plan) + steps_beside(plan, self.processes))

    def planned_looks(self, n_rows: int) -> int:
        """Checkpoints that may be compared with the base; a control's are none of the job's."""
        plan = rungs(self.total_steps(n_rows), self.eval_interval, self.n_seeds)
        return looks_of(plan, self.eval_interval)
