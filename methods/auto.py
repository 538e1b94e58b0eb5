"""How "auto" becomes a number: one small rule for each hyperparameter that has one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from methods.algorithms import RECIPES
from methods.hyperparameters import Known, Method

PROMPTS_PER_STEP = 8
GROUP_SIZE = 8
STEPS = 40
"""About how many updates a reinforcement run of "auto" epochs makes."""
MAX_AUTO_EPOCHS = 50
NEAREST_EVAL, FARTHEST_EVAL = 5, 25
"""Steps between validations of a reinforcement run: one epoch, within these."""
EVAL_SHARE = 0.25
"""Sampled answers of a validation, as a share of the completions trained on since the last one. Chosen, not
measured: with early stopping a run takes no longer than with one answer a row."""
MAX_AUTO_EVAL_SAMPLES = 8
SPLIT, SPLIT_FROM = 0.2, 40
"""Share of the training rows that is held out where there is no validation file, and from how many rows on:
of fewer, either part is too small to show anything."""
KL_TARGET, KL_TARGET_SHARE = 0.5, 0.3
"""The KL to hold, in nats per token and as a share of the base's entropy:
docs/decisions/0025-guard-and-kl-target.md has the trial.
"""
LEAST_UNSEEN = 5
"""Validation rows from which on a checkpoint is judged by them: a sign-flip test of five rows can claim a
gain at 5 % (1 / 32), one of four cannot."""
MOST_FRESH = 64
"""Training rows that are sampled afresh to judge a checkpoint where there are fewer. Chosen, not measured."""
LEAST_FRESH = 32
"""Completions of training rows by which a checkpoint is judged at least, however few rows there are: a gain
of one standard deviation is seen in nine of ten cases. Chosen by that, not measured."""
COMPLETION_TOKENS = 256
THINKING_TOKENS = 2048
"""Room for thoughts where nobody bounds them: eight times an answer's. Chosen, not measured."""
EFFORT_SHARES: Mapping[str, float] = {"low": 0.2, "medium": 0.5, "high": 0.8}
"""Thoughts, as a share of a completion, by effort: as OpenRouter turns an effort into a budget."""
EPOCHS: Mapping[Method, int] = {"supervised": 3, "dpo": 2}
STEPS_PER_EPOCH = 30
"""About how many updates an epoch of "auto" batches has, in the methods that learn from written answers."""
MAX_AUTO_BATCH = 32
RATE_AT_4096: Mapping[Method, float] = {"reinforcement": 4e-5, "supervised": 2e-4, "dpo": 2e-5}
"""AdamW's rate for a LoRA adapter of a model with hidden size 4096. It falls as models grow wider: with the
width for reinforcement runs, with its root for the others."""
MOST_RATE = 8e-4
"""Largest "auto" rate of an adapter in a reinforcement run. It bounds models narrower than 205: in the same
trial one of width 64 came as far with it as with three times as much, for half the KL.
"""
FULL_RATE_SHARE = 0.1
"""Rate of a full fine-tune as a share of an adapter's."""
WARM_UP_SHARE = 0.03
DPO_BETA = 0.1
PROBE_TOKENS = 64
PROBE_SHARE = 48
"""One prompt of the KL's probe for so many completions or examples trained on between two checkpoints. With
cherry-nano's 8 x 8 completions in each of 6 steps, 8 prompts with 2 answers each, which validation has
sampled, take 2.6 % of the steps' time (docs/trust.md).
"""
LEAST_PROBE, MOST_PROBE = 8, 64
"""Prompts of the KL's probe. Of fewer than 8 the mean says little of other prompts. Chosen, not measured."""
PROBE_SAMPLES = 8
"""Most answers to a prompt of the KL's probe: enough for an error of 5 % with 8 prompts where answers to the
same one differ by 40 % of their mean (64 answers), and no dearer than the probe of 0.1.0 was."""


def prompts_per_step(known: Known) -> int:
    """Returns 8 prompts, or all rows where there are fewer."""
    return min(PROMPTS_PER_STEP, known.facts.n_train)


def batch_size(known: Known) -> int:
    """Returns a thirtieth of the examples, from 1 to 32."""
    return clamp(round(known.facts.n_train / STEPS_PER_EPOCH), 1, MAX_AUTO_BATCH)


def n_epochs(known: Known) -> int:
    """Returns as many passes as make about 40 steps; 3 for supervised runs, 2 for dpo."""
    if known.method == "reinforcement":
        return clamp(math.ceil(STEPS / known.steps_per_epoch), 1, MAX_AUTO_EPOCHS)
    return EPOCHS[known.method]


def group_size(known: Known) -> int:
    """Returns 8 completions, multiplied by the compute multiplier, from 2 to 64."""
    return clamp(round(GROUP_SIZE * known.asked.get("compute_multiplier", 1)), 2, 64)


def max_completion_tokens(known: Known) -> int:
    """Returns 256 tokens, with room for thoughts beside them, or what the longest prompt leaves."""
    thoughts = known.asked.get("max_thinking_tokens", THINKING_TOKENS) if known.facts.thinks else 0
    return min(COMPLETION_TOKENS + thoughts, known.facts.context - known.facts.longest_prompt)


def max_thinking_tokens(known: Known) -> int | None:
    """Returns the share of a completion that the effort leaves to thoughts; no bound without one."""
    share = known.facts.budget_share
    return None if share is None else int(share * int(known["max_completion_tokens"]))


def learning_rate(known: Known) -> float:
    """Returns the method's rate at width 4096, scaled to the model's width; a tenth for a full fine-tune."""
    width = 4096 / known.facts.hidden_size
    if known.method == "reinforcement":
        rate = min(MOST_RATE, RATE_AT_4096[known.method] * width)
    else:
        rate = RATE_AT_4096[known.method] * math.sqrt(width)
    if known["adapter"] == "full":
        rate *= FULL_RATE_SHARE
    return min(1.0, rate * float(known.asked.get("learning_rate_multiplier", 1.0)))


def warmup_steps(known: Known) -> int:
    """Returns 0 for reinforcement runs, 3 % of the steps for the others."""
    if known.method == "reinforcement":
        return 0
    return math.floor(WARM_UP_SHARE * int(known["n_epochs"]) * known.steps_per_epoch)


def lora_alpha(known: Known) -> float:
    """Returns twice the rank, so that the rank does not change the size of an update."""
    return 2.0 * float(known["lora_rank"])


def eval_interval(known: Known) -> int:
    """Returns the steps of one epoch; for reinforcement runs between 5 and 25."""
    if known.method == "reinforcement":
        return clamp(known.steps_per_epoch, NEAREST_EVAL, FARTHEST_EVAL)
    return known.steps_per_epoch


def eval_samples(known: Known) -> int:
    """Returns the answers to each validation row: about a quarter of what is sampled in between, 1 to 8."""
    sampled = int(known["eval_interval"]) * int(known["prompts_per_step"]) * int(known["group_size"])
    rows = evaluation_rows(known.facts.n_train, known.facts.n_valid)
    return clamp(int(EVAL_SHARE * sampled / rows), 1, MAX_AUTO_EVAL_SAMPLES)


def evaluation_rows(n_train: int, n_valid: int) -> int:
    """Returns the rows by which checkpoints are judged: those of validation, or of training if too few.

    Of fewer than five rows nothing can be proven: in one case of sixteen or more all get better by luck.
    """
    return n_valid if n_valid >= LEAST_UNSEEN else min(n_train, MOST_FRESH)


def fresh_samples(eval_samples: int, rows: int) -> int:
    """Returns the answers to each training row that is sampled afresh: 32 or more to all of them."""
    return max(eval_samples, -(-LEAST_FRESH // rows))


def validation_split(known: Known) -> float:
    """Returns a fifth where there is no validation file and there are 40 training rows or more, else 0."""
    has_rows = known.facts.n_train >= SPLIT_FROM and not known.facts.n_valid
    return SPLIT if has_rows else 0.0


def kl_target(known: Known) -> float:
    """Returns 0.5 nats per token; 0 where beta stays as it is: where the request sets it, or it is 0."""
    return KL_TARGET if _is_beta_free(known) else 0.0


def kl_target_share(known: Known) -> float:
    """Returns 0.3 of the base's entropy; 0 where the request sets a target of its own, or beta stays."""
    return KL_TARGET_SHARE if _is_beta_free(known) and "kl_target" not in known.asked else 0.0


def _is_beta_free(known: Known) -> bool:
    recipe = RECIPES[known.asked.get("algorithm", "grpo")]
    return "beta" not in known.asked and recipe.defaults.get("beta") != 0


def dpo_beta(_: Known) -> float:
    """Returns 0.1."""
    return DPO_BETA


def probe_tokens(known: Known) -> int:
    """Returns 64 tokens, or what the longest prompt leaves of the context."""
    return clamp(known.facts.context - known.facts.longest_prompt, 1, PROBE_TOKENS)


def kl_probe_size(known: Known) -> int:
    """Returns a prompt for 48 completions or examples between two checkpoints, from 8 to 64."""
    reinforcement = known.method == "reinforcement"
    each = known["prompts_per_step"] * known["group_size"] if reinforcement else known["batch_size"]
    return clamp(int(known["eval_interval"]) * int(each) // PROBE_SHARE, LEAST_PROBE, MOST_PROBE)


def kl_probe_samples(_: Known) -> int:
    """Returns 8."""
    return PROBE_SAMPLES


def clamp(value: int, low: int, high: int) -> int:
    """The value, moved into [low, high]."""
    return max(low, min(high, value))
