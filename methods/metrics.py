"""Every metric of a run: its name, unit and meaning, declared once. No torch, no database.

The engine tells its numbers under these names; events and the result file rename them to OpenAI's, and the
dashboard draws them. A name with braces is a pattern: `PART_MEAN.format(split="train", part="city")`.
docs/metrics.md shows the same tables, and a test holds it to them: `python -m methods.metrics` prints them.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Unit = Literal[
    "grader units",
    "nats",
    "nats per token",
    "nats per answer",
    "tokens",
    "seconds",
    "share",
    "ratio",
    "count",
    "number",
]
"""A share is between 0 and 1; a number has no unit."""


class Metric(NamedTuple):
    """One metric, or a pattern of several.

    Attributes:
        name: `area/thing`; parts in braces vary.
        unit: of its value.
        when: the steps that have it.
        meaning: a sentence; `docs/metrics.md` shows it.
    """

    name: str
    unit: Unit
    when: str
    meaning: str


TABLES: dict[str, list[Metric]] = {}
"""Metrics by heading of docs/metrics.md, in the order in which they are shown."""


def _declare(name: str, unit: Unit, when: str, meaning: str) -> str:
    """Declares a metric below the last heading and returns its name."""
    TABLES[next(reversed(TABLES))].append(Metric(name, unit, when, meaning))
    return name


def find(name: str) -> Metric | None:
    """Returns the metric that a run's name belongs to; None for a name that nobody declared."""
    for metrics in TABLES.values():
        for metric in metrics:
            if re.fullmatch(re.sub(r"\\{\w+\\}", "(.+)", re.escape(metric.name)), name):
                return metric
    return None


def markdown(heading: str) -> str:
    """Returns the table below a heading of docs/metrics.md."""
    rows = ["| name | unit | when | meaning |", "|---|---|---|---|"]
    rows += [f"| `{each.name}` | {each.unit} | {each.when} | {each.meaning} |" for each in TABLES[heading]]
    return "\n".join(rows)


EVERY_STEP = "every step"
UPDATES = "updates"
VALIDATIONS = "validations"
SPLITS = "every step; validations"
GUARDED = "every step, with a `guard`"
PPO = "ppo"
DPO = "dpo, every step"
LOSSES = "train: every step; valid, full_valid: with validations"


TABLES["Rewards"] = []
REWARD_MEAN = _declare(
    "reward/mean",
    "grader units",
    EVERY_STEP,
    "mean reward of the step's graded completions; steps have different prompts, so they compare roughly",
)
REWARD_STD = _declare("reward/std", "grader units", EVERY_STEP, "standard deviation of this step's rewards")
REWARD_MIN = _declare("reward/min", "grader units", EVERY_STEP, "smallest of this step's rewards")
REWARD_MAX = _declare("reward/max", "grader units", EVERY_STEP, "largest of this step's rewards")
OVERLONG_PENALTY = _declare(
    "reward/overlong_penalty",
    "grader units",
    "updates with `overlong_buffer` > 0",
    "mean of what graded completions lost for their length; `reward/mean` is before that",
)
VALID_REWARD_MEAN = _declare(
    "reward/valid_mean",
    "grader units",
    VALIDATIONS,
    "mean over validation rows of each row's mean reward",
)
VALID_REWARD_STDERR = _declare(
    "reward/valid_stderr",
    "grader units",
    VALIDATIONS,
    "standard error of `reward/valid_mean` over rows; not there for fewer than four",
)
FRESH_REWARD_MEAN = _declare(
    "reward/fresh_mean",
    "grader units",
    "validations with fewer than five validation rows",
    "mean over training rows, sampled afresh, of each row's mean reward; checkpoints are judged by it",
)
FRESH_REWARD_STDERR = _declare(
    "reward/fresh_stderr",
    "grader units",
    "as `reward/fresh_mean`",
    "standard error of `reward/fresh_mean` over rows; not there for fewer than four",
)
GREEDY_REWARD_MEAN = _declare(
    "reward/greedy_mean",
    "grader units",
    "validations",
    "mean reward of one greedy completion for each row that checkpoints are judged by",
)
GOLD_REWARD_MEAN = _declare(
    "reward/gold_mean",
    "grader units",
    "validations with a `gold_grader`",
    "mean of the gold grader's rewards, in its own units, on the rows that checkpoints are judged by",
)
GOLD_REWARD_STDERR = _declare(
    "reward/gold_stderr",
    "grader units",
    "as `reward/gold_mean`",
    "its standard error over rows; not there for fewer than four",
)
GOLD_OVER_BASE = _declare(
    "reward/gold_over_base",
    "grader units",
    "as `reward/gold_mean`",
    "mean over rows of the difference to the base's gold reward on each",
)
GOLD_OVER_BASE_STDERR = _declare(
    "reward/gold_over_base_stderr", "grader units", "as `reward/gold_mean`", "its standard error over rows"
)
GOLD_GAP = _declare(
    "reward/gold_gap",
    "share",
    "as `reward/gold_mean`",
    "by how much more the reward has gained over the base than the gold reward, on the same rows, each as a"
    " share of its grader's range",
)
GOLD_GAP_LOW = _declare(
    "reward/gold_gap_low",
    "share",
    "as `reward/gold_mean`",
    "lower end of a 95 % interval of `reward/gold_gap`, right for all evaluations so far together",
)
GOLD_GAP_HIGH = _declare(
    "reward/gold_gap_high",
    "share",
    "as `reward/gold_mean`",
    "the upper end",
)
OVER_BASE_MEAN = _declare(
    "reward/over_base_mean",
    "grader units",
    VALIDATIONS,
    "mean over the rows that checkpoints are judged by of the difference to the base's reward on each",
)
OVER_BASE_STDERR = _declare(
    "reward/over_base_stderr",
    "grader units",
    VALIDATIONS,
    "standard error of `reward/over_base_mean` over rows; not there for fewer than four",
)
OVER_BASE_LOW = _declare(
    "reward/over_base_low",
    "grader units",
    VALIDATIONS,
    "one-sided 95 % lower bound of `reward/over_base_mean`, right for all checkpoints so far together",
)
OVER_BASE_HIGH = _declare(
    "reward/over_base_high", "grader units", VALIDATIONS, "the upper bound of the same kind"
)
OVER_BASE_P = _declare(
    "reward/over_base_p",
    "share",
    VALIDATIONS,
    "chance of so large a gain of any checkpoint so far where there is none (adjusted p of a sign-flip test)",
)
NO_SPREAD_SHARE = _declare(
    "groups/no_spread_share",
    "share",
    EVERY_STEP,
    "prompts whose completions all have the same reward, to a thousandth of the grader's range; these teach"
    " nothing, and are not computed but for the KL term",
)
PART_MEAN = _declare(
    "parts/{split}/{part}",
    "grader units",
    "where graders have parts",
    "mean score of one part (a sub-grader, a field) over the grades that have it",
)


TABLES["Grades"] = []
GRADES_COUNT = _declare("grades/{split}_count", "count", SPLITS, "completions that were sent to the grader")
PARSE_ERROR_SHARE = _declare(
    "grades/{split}_parse_error_share", "share", SPLITS, "completions that could not be parsed"
)
UNPARSED_SHARE = _declare(
    "grades/{split}_unparsed_share",
    "share",
    SPLITS,
    "completions that do not lie in the parts of the model's response template; they are graded on nothing,"
    " and count among those that could not be parsed",
)
UNGRADED_SHARE = _declare(
    "grades/{split}_ungraded_share",
    "share",
    SPLITS,
    "completions without a reward, by the fault of grader or data",
)
GRADE_SECONDS = _declare("grades/{split}_seconds_mean", "seconds", SPLITS, "mean time that one grading took")
FAILURES = _declare(
    "failures/{split}/{kind}",
    "count",
    "where grades failed",
    "failed grades of a kind (`sample_parse_error`, `python_grader_runtime_error`, ...)",
)
PART_FAILURES = _declare(
    "part_failures/{split}/{kind}/{part}",
    "count",
    "where parts failed",
    "failures of a kind of one part that failed by itself",
)
PART_SECONDS = _declare(
    "part_seconds/{split}/{part}",
    "seconds",
    "graders of a `multi`",
    "mean time that one grading by this part took",
)
USAGE = _declare(
    "usage/{split}/{kind}/{model}",
    "tokens",
    "graders that ask a model",
    "tokens of a judge or embedding model in this step; {kind} is `prompt_tokens`, `completion_tokens` or "
    "`cached_tokens` (a share of the prompt's), `calls`, which counts replies, or `known`: those that were "
    "known from earlier calls, which cost none",
)
PART_USAGE = _declare(
    "part_usage/{split}/{kind}/{part}",
    "tokens",
    "graders of a `multi`",
    "tokens of one grader of a `multi` in this step",
)
TOTAL_USAGE = _declare(
    "usage/total/{kind}/{model}",
    "tokens",
    "graders that ask a model",
    "tokens of a model since the run began, training and validation together",
)


TABLES["Completions and tokens"] = []
COMPLETION_TOKENS_MEAN = _declare(
    "completion/{split}_tokens_mean",
    "tokens",
    SPLITS,
    "mean length of a completion, with its end token",
)
COMPLETION_TOKENS_MAX = _declare(
    "completion/{split}_tokens_max", "tokens", SPLITS, "length of the longest completion"
)
TRUNCATED_SHARE = _declare(
    "completion/{split}_truncated_share",
    "share",
    SPLITS,
    "completions that were cut at the token limit or at the end of the context",
)
REASONING_TOKENS_MEAN = _declare(
    "completion/{split}_reasoning_tokens_mean",
    "tokens",
    SPLITS,
    "mean tokens of a completion's thoughts, their marks counted, as far as the model's chat template tells"
    " thoughts",
)
CUT_IN_THOUGHTS_SHARE = _declare(
    "completion/{split}_cut_in_thoughts_share",
    "share",
    SPLITS,
    "completions that ended before their thoughts did, so that they have no answer",
)
PROMPT_TOKENS = _declare(
    "tokens/prompt",
    "tokens",
    EVERY_STEP,
    "prompt tokens of this step's prompts, each counted once",
)
SAMPLED_TOKENS = _declare("tokens/{split}_sampled", "tokens", SPLITS, "completion tokens that were sampled")
REASONING_TOKENS = _declare(
    "tokens/{split}_reasoning", "tokens", SPLITS, "tokens of thoughts, of all completions together"
)
TRAINED_TOKENS = _declare(
    "tokens/trained_total",
    "tokens",
    EVERY_STEP,
    "prompt and completion tokens seen in updates since the run began",
)
SAMPLING_ROUNDS = _declare("sampling/rounds", "count", "dynamic sampling", "how often the step drew prompts")
DISCARDED_GROUPS = _declare(
    "sampling/discarded_groups",
    "count",
    "dynamic sampling",
    "groups without spread, which the update was not given",
)


TABLES["Episodes and tools"] = []
EPISODES = "jobs with tools or a simulated user: every step; validations"
EPISODE_TURNS = _declare(
    "episodes/{split}_turns_mean", "count", EPISODES, "turns of the policy in an episode"
)
EPISODE_USER_TURNS = _declare(
    "episodes/{split}_user_turns_mean",
    "count",
    "jobs with a simulated user: every step; validations",
    "messages of the simulated user in an episode",
)
EPISODES_LOST = _declare(
    "episodes/{split}_lost",
    "count",
    EPISODES,
    "episodes that broke off by the fault of a tool server or of the model that plays the user; they are in "
    "no gradient",
)
TOOL_CALLS = _declare("tools/{split}/calls_mean/{tool}", "count", EPISODES, "calls of a tool in an episode")
TOOL_TOKENS = _declare(
    "tools/{split}/tokens_mean/{tool}", "tokens", EPISODES, "length of what a tool answered"
)
TOOL_SECONDS = _declare(
    "tools/{split}/seconds_mean/{tool}", "seconds", EPISODES, "how long a call took, all tries together"
)
TOOL_ERRORS = _declare(
    "tools/{split}/errors/{tool}",
    "count",
    EPISODES,
    "calls that were answered with an error, which the policy read, or whose tool server failed",
)


TABLES["Policy"] = []
KL_PROBE_MEAN = _declare(
    "kl/probe_mean",
    "nats per token",
    "every checkpoint, also at beta 0; early probes of the guard",
    "exact KL(policy, start) over the whole vocabulary, at temperature 1, on answers that the policy "
    "writes to a fixed set of prompts with fixed random numbers; mean over answers of each one's mean over "
    "tokens",
)
KL_PROBE_STDERR = _declare(
    "kl/probe_stderr",
    "nats per token",
    "every checkpoint",
    "standard error of `kl/probe_mean` for these prompts, from the differences between answers to the same "
    "one; with one answer to each it is over prompts, and not there for a single one",
)
KL_POOLED_MEAN = _declare(
    "kl/probe_pooled_mean",
    "nats per token",
    "every checkpoint",
    "the same KL, with all tokens weighing the same: long answers count for more",
)
KL_POOLED_STDERR = _declare(
    "kl/probe_pooled_stderr", "nats per token", "every checkpoint", "its standard error"
)
KL_ANSWER_MEAN = _declare(
    "kl/answer_mean",
    "nats per answer",
    "every checkpoint",
    "KL of the distribution of whole answers: the sum over an answer's tokens, mean over answers",
)
KL_ANSWER_STDERR = _declare("kl/answer_stderr", "nats per answer", "every checkpoint", "its standard error")
KL_PROBE_ANSWERS = _declare(
    "kl/probe_answers",
    "count",
    "every checkpoint",
    "answers that this took: more are drawn, to `kl_probe_samples` a prompt, until the error is small",
)
KL_ORIGIN_MEAN = _declare(
    "kl/origin_mean",
    "nats per token",
    "every checkpoint of a run that starts from a tuned model",
    "as `kl/probe_mean`, to the model that the start was tuned from",
)
KL_ORIGIN_STDERR = _declare(
    "kl/origin_stderr", "nats per token", "with `kl/origin_mean`", "its standard error"
)
KL_ORIGIN_ANSWER_MEAN = _declare(
    "kl/origin_answer_mean",
    "nats per answer",
    "with `kl/origin_mean`",
    "as `kl/answer_mean`, to the model that the start was tuned from",
)
KL_ORIGIN_ANSWER_STDERR = _declare(
    "kl/origin_answer_stderr", "nats per answer", "with `kl/origin_mean`", "its standard error"
)
CANARY_LOSS = _declare(
    "canary/loss",
    "nats per token",
    "every checkpoint",
    "loss on the canary, a small frozen set of text that has nothing to do with the task; mean over texts of "
    "each one's mean over tokens",
)
CANARY_LOSS_STDERR = _declare(
    "canary/loss_stderr", "nats per token", "every checkpoint", "its standard error over texts"
)
CANARY_OVER_BASE = _declare(
    "canary/over_base",
    "nats per token",
    "every checkpoint",
    "how much more that is than the loss of step 0 on the same texts: what the model has forgotten",
)
CANARY_OVER_BASE_STDERR = _declare(
    "canary/over_base_stderr",
    "nats per token",
    "every checkpoint",
    "standard error of the paired difference over texts",
)
KL_REFERENCE = _declare(
    "kl/reference",
    "nats per token",
    UPDATES,
    "k3 estimate of KL(policy, base) on the completions trained, at the sampling temperature",
)
ENTROPY_MEAN = _declare(
    "entropy/mean",
    "nats per token",
    UPDATES,
    "entropy of the policy's next-token prediction, at the sampling temperature",
)
RATIO_MEAN = _declare(
    "ratio/mean",
    "ratio",
    UPDATES,
    "mean over tokens of the probability now over the one before the step's first update, in its last update "
    "(gspo: geometric mean of a completion's tokens); 1 with `updates_per_step` = 1",
)
RATIO_MIN = _declare("ratio/min", "ratio", UPDATES, "smallest such ratio of any token")
RATIO_MAX = _declare("ratio/max", "ratio", UPDATES, "largest such ratio of any token")
CLIPPED_SHARE = _declare(
    "ratio/clipped_share",
    "share",
    UPDATES,
    "tokens whose gradient the clip removes (cispo: whose weight it bounds)",
)
CLIPPED_LOW_SHARE = _declare(
    "ratio/clipped_low_share", "share", UPDATES, "tokens whose gradient the clip's lower bound removes"
)
IMPORTANCE_TRUNCATED_SHARE = _declare(
    "ratio/truncated_share",
    "share",
    UPDATES,
    "tokens that were so much likelier before the update than when they were sampled that their importance "
    "weight reached `importance_cap`",
)
SAMPLER_MISMATCH = _declare(
    "sampler/mismatch",
    "nats per token",
    UPDATES,
    "mean difference between the sampler's log-probability of a token and the trainer's for the same "
    "weights; about 1e-6 in fp32, alarming above 0.05",
)
SAMPLER_MISMATCH_MAX = _declare(
    "sampler/mismatch_max", "nats", UPDATES, "largest such difference of any token"
)
SAMPLER_LAG = _declare(
    "sampler/lag",
    "nats per token",
    "updates with `async_steps` = 1, in place of `sampler/mismatch`",
    "mean difference as in `sampler/mismatch` where the sampler's weights are an update older: rounding "
    "and update together",
)
SAMPLER_LAG_MAX = _declare(
    "sampler/lag_max", "nats", "with `sampler/lag`", "largest such difference of any token"
)
EXPLAINED_VARIANCE = _declare(
    "value/explained_variance",
    "share",
    PPO,
    "variance of the tokens' returns (undiscounted, to the completion's end) that their values before the "
    "update account for; 0: no better than their mean, below 0: worse",
)
VALUE_LOSS = _declare(
    "value/loss",
    "number",
    PPO,
    "half the squared error of the values, clipped, weighted as the tokens' loss is; in variances of the "
    "step's rewards",
)


TABLES["Learning from written completions"] = []
LOSS = _declare(
    "loss/{split}",
    "nats per token",
    LOSSES,
    "mean loss; `train` is the step's batch before its update, `valid` the next `batch_size` validation "
    "examples, `full_valid` all of them. dpo: mean over pairs, in nats per pair",
)
ACCURACY = _declare(
    "accuracy/{split}",
    "share",
    LOSSES,
    "learned tokens of these examples that the model finds likeliest; dpo: of the preferred completions",
)
DPO_REWARD_CHOSEN = _declare(
    "dpo/reward_chosen",
    "nats",
    DPO,
    "mean of beta x log-ratio to the start, of the preferred completions",
)
DPO_REWARD_REJECTED = _declare(
    "dpo/reward_rejected", "nats", DPO, "mean of beta x log-ratio to the start, of the other completions"
)
DPO_REWARD_MARGIN = _declare(
    "dpo/reward_margin", "nats", DPO, "mean over pairs of the chosen reward less the rejected one"
)
DPO_REWARD_ACCURACY = _declare("dpo/reward_accuracy", "share", DPO, "pairs whose margin is above 0")
DPO_VALID_REWARD_MARGIN = _declare(
    "dpo/{split}_reward_margin",
    "nats",
    "dpo, with the losses of `valid` and `full_valid`",
    "mean margin of the validation pairs measured",
)
DPO_VALID_REWARD_ACCURACY = _declare(
    "dpo/{split}_reward_accuracy", "share", "with the margin", "validation pairs whose margin is above 0"
)


TABLES["Optimiser"] = []
LEARNING_RATE = _declare("optim/lr", "number", UPDATES, "learning rate of the policy")
BETA = _declare(
    "optim/beta",
    "number",
    UPDATES,
    "weight of the KL penalty: the run's `beta`, times what the KL target and the guard made of it",
)
GRAD_NORM = _declare("optim/grad_norm", "number", UPDATES, "norm of the policy's gradient before clipping")
POLICY_LOSS = _declare(
    "optim/loss",
    "number",
    UPDATES,
    "the policy's loss; its value says little, since it starts near 0 in every step",
)


TABLES["Guard"] = []
GUARD_KL_LIMIT = _declare(
    "guard/kl_limit",
    "nats per token",
    "with a `guard`, when the KL was measured",
    "`kl/probe_mean` above which the guard acts; above half of it a fall of the validation counts",
)
GUARD_ACTIONS = _declare(
    "guard/actions", "count", GUARDED, "actions of the guard so far, this step's too; with `warn` those told"
)
GUARD_ROLLBACKS = _declare(
    "guard/rollbacks", "count", GUARDED, "times that the run went back to a good state"
)
GUARD_LR_SCALE = _declare(
    "guard/lr_scale", "ratio", GUARDED, "what the guard multiplies the learning rate by, after this step"
)


JUDGE_TALK = _declare(
    "guard/judge_talk_share",
    "share",
    "every step, where the grader asks a judge",
    "completions with words to whoever judges them, as patterns find them: an order, a claimed score, a "
    "forged message",
)


TABLES["Arms"] = []
ARM_SEED = _declare(
    "arm/seed", "number", "jobs with `n_seeds` or `controls`", "seed of the run that this step belongs to"
)
ARM_STEP = _declare("arm/step", "count", "as `arm/seed`", "the run's own step; a job numbers through all")
ARM_IS_CONTROL = _declare(
    "arm/is_control", "number", "steps of a control", "1: the grades of this step were permuted"
)


TABLES["Time"] = []
TIME_SAMPLING = _declare("time/sampling", "seconds", EVERY_STEP, "the sampling of the step's completions")
TIME_UPDATING = _declare("time/updating", "seconds", EVERY_STEP, "the update")
TIME_GRADING = _declare(
    "time/grading",
    "seconds",
    EVERY_STEP,
    "what grading still took after sampling: each completion is graded as soon as it has ended",
)
TIME_GRADING_BUSY = _declare(
    "time/grading_busy",
    "seconds",
    EVERY_STEP,
    "time spent in graders, added up over the threads of the main process; more than sampling and grading "
    "took where threads worked side by side",
)
TIME_WAITING = _declare(
    "time/waiting",
    "seconds",
    "`async_steps` = 1",
    "from the end of the update until the next step's rollouts were there. `time/sampling` and "
    "`time/grading` are then those of this step's rollouts, during the step before",
)
TIME_EVAL = _declare("time/eval", "seconds", "where made", "validation and KL probe")
TIME_STEP = _declare(
    "time/step", "seconds", EVERY_STEP, "the whole step, without writing checkpoint and state"
)
TIME_TOTAL = _declare("time/total", "seconds", EVERY_STEP, "all finished steps, since the run began")


if __name__ == "__main__":
    for heading in TABLES:
        print(f"## {heading}\n\n{markdown(heading)}\n")
