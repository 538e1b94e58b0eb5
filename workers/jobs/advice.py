"""What to do about a job that found nothing better than the base, from what its steps have measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any, NamedTuple

from methods import metrics as names
from methods.train_config import TrainConfig

NO_BETTER = "No checkpoint was better than the base model beyond doubt: the delivered model equals the base."
DRIFT = 2.0
"""KL to the base, in nats per token, from which on a policy counts as collapsed. In a trial of 94 runs it was
passed by 50 of the 51 that had collapsed and by none of the 27 sound ones.
"""
ROUNDED = 0.5
"""What rounding loses, relative to what was trained, from which on that is told. Chosen, not measured."""
MOST = 0.5
"""Share of completions that a fault has to hold for to be named as the reason. Chosen, not measured."""
ALL_BUT_A_FEW = 0.9
"""Share of prompts without spread from which on that is the reason. Chosen, not measured: nearly all of the
sampling was in vain.
"""
NEAR_AN_END = 0.1
"""Share of the grader's range that is near its end. Chosen, not measured."""
HARDLY_MOVED = 0.01
"""KL to the base, in nats per token, up to which a policy is hardly another one. Chosen, not measured: the
defaults reach their reward between 0.1 and 2 in the trial.
"""
CONFIDENCE_Z = 1.6448536269514722
"""The normal quantile of a one-sided 95 % bound: a convention, as for the choice of the model."""


class Step(NamedTuple):
    """Holds what was measured at a step, under the names of methods/metrics.py."""

    number: int
    values: Mapping[str, Any]

    def get(self, name: str) -> float | None:
        """Returns a number, or None where it was not measured."""
        value = self.values.get(name)
        return None if value is None else float(value)


class Gain(NamedTuple):
    """Holds how much better than the base a step was on the validation rows, in grader units."""

    step: int
    mean: float
    stderr: float | None

    def __str__(self) -> str:
        error = "an unknown error" if self.stderr is None else f"{self.stderr:.2g}"
        return f"{self.mean:+.2g} ± {error}"


def advice(history: Sequence[Step], config: TrainConfig) -> str:
    """Returns the sentences of the last warning: what was seen, and what to change.

    `history` are the steps of a run that delivers the base, in their order, step 0 first.
    """
    findings = (_failed_grades, _collapse, _unreadable, _truncated, _without_spread, _uncertain_gain)
    for find in findings:
        if found := find(history, config):
            return f"{NO_BETTER} {found}"
    return f"{NO_BETTER} {_no_gain(history, config)}"


def drift_warning(step: int, kl: float, config: TrainConfig) -> str | None:
    """Returns a warning for a delivered model that is far from its base; None for any other."""
    if kl <= DRIFT:
        return None
    return (
        f"The delivered model (step {step}) has moved {kl:.2g} nats per token from the base, which models"
        f" that still write sensibly seldom do: read its answers before you use it. {_slower(config)}"
    )


def rounding_warning(step: int, error: float | None, *, has_adapter: bool) -> str | None:
    """Returns a warning for a delivered model whose dtype lost much of what was trained; None for any other.

    `error` is what rounding lost, relative to what was trained.
    """
    if error is None or error <= ROUNDED:
        return None
    instead = (
        "`adapter/` holds the change in fp32: load it with the base to use what was trained."
        if has_adapter
        else "Store the base in float32 and train that, if the change is to be kept whole."
    )
    return (
        f"The delivered model (step {step}) has the base's dtype, and rounding to it moved the weights by"
        f" {error:.0%} of what training had. It was measured as it is delivered. {instead}"
    )


def _failed_grades(history: Sequence[Step], _config: TrainConfig) -> str | None:
    """Looks at both splits, since failures of either leave nothing to choose by."""
    for split, what in (("train", "training"), ("valid", "validation")):
        share = _share(history, split, names.UNGRADED_SHARE)
        if share >= MOST:
            failed = "All" if share == 1 else f"{share:.0%} of the"
            kinds = ", ".join(
                f"{kind} {count:.0f}" for kind, count in _failures(history, split).most_common(3)
            )
            return (
                f"{failed} {what} grades failed ({kinds}). Mend the grader: the rollouts show each failure's"
                " message."
            )
    return None


def _collapse(history: Sequence[Step], config: TrainConfig) -> str | None:
    """Finds the first step that was too far from the base, or a last validation that was surely worse."""
    gains = {gain.step: gain for gain in _gains(history)}
    for step in history:
        kl = step.get(names.KL_PROBE_MEAN)
        if kl is not None and kl > DRIFT:
            gain = gains.get(step.number)
            reward = f", and its validation reward by {gain}" if gain else ""
            return (
                f"The policy collapsed at step {step.number}: it had moved {kl:.2g} nats per token from the"
                f" base{reward}. {_slower(config)}"
            )
    last = max(gains.values(), default=None)
    if last and last.stderr is not None and last.mean + CONFIDENCE_Z * last.stderr < 0:
        return f"The validation reward fell, by {last} at step {last.step}. {_slower(config)}"
    return None


def _unreadable(history: Sequence[Step], config: TrainConfig) -> str | None:
    share = _share(history, "train", names.PARSE_ERROR_SHARE)
    if share < MOST:
        return None
    hint = (
        "Give the job a response_format, or show the form in the prompts."
        if config.response_format is None
        else "Ask for shorter answers, or raise max_completion_tokens: what is cut does not parse."
    )
    return f"{share:.0%} of the training answers could not be parsed. {hint}"


def _truncated(history: Sequence[Step], config: TrainConfig) -> str | None:
    share = _share(history, "train", names.TRUNCATED_SHARE)
    if share < MOST:
        return None
    return (
        f"{share:.0%} of the training answers were cut at max_completion_tokens"
        f" ({config.max_completion_tokens}) and graded without their end. Raise it, or ask for shorter"
        " answers."
    )


def _without_spread(history: Sequence[Step], config: TrainConfig) -> str | None:
    shares, rewards = _series(history, names.NO_SPREAD_SHARE), _series(history, names.REWARD_MEAN)
    if not shares or not rewards or fmean(shares) < ALL_BUT_A_FEW:
        return None
    share, mean = fmean(shares), fmean(rewards)
    low, high = config.reward_range or (0.0, 1.0)
    if mean >= high - NEAR_AN_END * (high - low):
        hint = "The base solves the task already: use harder rows, or a grader that asks for more."
    elif mean <= low + NEAR_AN_END * (high - low):
        hint = (
            "The task is out of the base's reach: use easier rows, a grader that gives part of the reward for"
            " part of the answer, or a larger group_size."
        )
    else:
        hint = "The grader does not tell answers to the same prompt apart: give it finer grades."
    return (
        f"For {share:.0%} of the training prompts all completions got the same reward (mean {mean:.2g}),"
        f" which teaches nothing. {hint}"
    )


def _uncertain_gain(history: Sequence[Step], config: TrainConfig) -> str | None:
    best = max(_gains(history), key=lambda gain: gain.mean, default=None)
    if best is None or best.mean <= 0:
        return None
    rows = _validation_rows(history, config)
    if best.stderr is None:
        return (
            f"The best gain, at step {best.step}, was {best} on {rows} validation rows, which are too few to"
            " say how sure it is: give more of them, 50 or so."
        )
    needed = math.ceil(rows * (CONFIDENCE_Z * best.stderr / best.mean) ** 2)
    return (
        f"The best gain, at step {best.step}, was {best} on {rows} validation rows, which may be luck. If it"
        f" is real, {max(needed, rows + 1):,} validation rows would show it."
    )


def _no_gain(history: Sequence[Step], config: TrainConfig) -> str:
    """Says how the best checkpoint did, and whether the policy moved, or learnt its rows alone."""
    best = max(_gains(history), key=lambda gain: gain.mean, default=None)
    seen = f"The best checkpoint, of step {best.step}, gained {best}." if best else "None was validated."
    if history and all(step.number == 0 for step in history):
        return "The run ended before its first step: give it a larger budget."
    moved = _series(history, names.KL_PROBE_MEAN)
    if moved and moved[-1] <= HARDLY_MOVED:
        return (
            f"{seen} The policy hardly moved ({moved[-1]:.2g} nats per token from the base): raise n_epochs,"
            f" or learning_rate_multiplier (the rate was {config.learning_rate:.2g})."
        )
    rewards = _series(history, names.REWARD_MEAN)
    early, late = rewards[: len(rewards) // 2], rewards[len(rewards) // 2 :]
    if (rise := _rise(early, late)) is not None:
        return (
            f"{seen} The training reward rose from {rise[0]:.2g} to {rise[1]:.2g}: what was learnt does not"
            " carry over to the validation rows. Use more training rows, and such as are like them."
        )
    return (
        f"{seen} The training reward did not rise either: look at the completions and their grades, whether"
        " the better answers get the higher ones."
    )


def _slower(config: TrainConfig) -> str:
    how = f"Lower the learning rate (it was {config.learning_rate:.2g}) to a third"
    return f"{how}, or raise beta (it was {config.beta:g})."


def _gains(history: Sequence[Step]) -> list[Gain]:
    found = []
    for step in history:
        mean = step.get(names.OVER_BASE_MEAN)
        if step.number > 0 and mean is not None:
            found.append(Gain(step.number, mean, step.get(names.OVER_BASE_STDERR)))
    return found


def _share(history: Sequence[Step], split: str, name: str) -> float:
    """Returns a share of completions over all steps of a split, each with its number of completions."""
    held = total = 0.0
    for step in history:
        count = step.get(names.GRADES_COUNT.format(split=split)) or 0.0
        held += count * (step.get(name.format(split=split)) or 0.0)
        total += count
    return held / total if total else 0.0


def _failures(history: Sequence[Step], split: str) -> Counter[str]:
    """Counts failures by kind, without those of completions that do not parse."""
    start = names.FAILURES.format(split=split, kind="")
    counts: Counter[str] = Counter()
    for step in history:
        for name, value in step.values.items():
            if name.startswith(start) and value is not None:
                counts[name.removeprefix(start)] += value
    del counts["sample_parse_error"]
    return counts


def _validation_rows(history: Sequence[Step], config: TrainConfig) -> int:
    counts = _series(history, names.GRADES_COUNT.format(split="valid"))
    return round(max(counts, default=0.0) / config.eval_samples)


def _series(history: Sequence[Step], name: str) -> list[float]:
    return [value for step in history if (value := step.get(name)) is not None]


def _rise(early: Sequence[float], late: Sequence[float]) -> tuple[float, float] | None:
    """Returns the means of both if the later one is higher by more than two standard errors, else None."""
    if len(early) < 2 or len(late) < 2:
        return None
    before, after = fmean(early), fmean(late)
    error = math.sqrt(variance(early) / len(early) + variance(late) / len(late))
    return (before, after) if after > before + 2 * error else None
