"""What samples of the base say of the job: its signal, its steps, its time, and the gain it can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from app.grading.expected_cost import evaluation_samples, planned_answers
from graders import GraderSpec
from methods.auto import LEAST_UNSEEN, evaluation_rows
from methods.rewards import Scale, scale_of
from methods.train_config import TrainConfig
from workers.preflights import expectations
from workers.preflights.base_samples import Samples, examples, mean_length
from workers.preflights.files import percentile
from workers.preflights.other_graders import in_words, other_graders
from workers.preflights.report import WEAK_SIGNAL, Finding, Severity
from workers.training.rewards import first_messages
from workers.training.trust.flat_reward import COMPLETIONS
from workers.training.trust.power import Judging, rewards_by_prompt, smallest_gain

MUCH = 0.25
"""Share of answers from which on truncated or unreadable ones are told of. Chosen, not measured."""
MOSTLY = 0.8
"""Share of prompts that are never, or always, right from which on that is told. Chosen, not measured."""
ROUGH = 2.0
"""The time of a job is told with so much below and above. Tried on one machine only: see docs/trust.md."""
LARGE_GAIN = 0.25
"""Share of the range of rewards; a job that can show no smaller gain is told so. Chosen, not measured."""
MARGIN, LENGTH_UNIT = 1.5, 16
"""The suggested length is so many times what finished answers need, in steps of so many tokens. Chosen."""
EXAMPLES, EXAMPLE_CHARACTERS = 4, 500


NOT_KNOWN = {"never": None, "sometimes": None, "always": None}


def base_numbers(samples: Samples, config: TrainConfig, *, is_of_groups: bool = False) -> dict[str, Any]:
    """Returns what the base gets, and how much of a step could teach anything.

    Where the grader compares answers (`is_of_groups`), no value says that one is right.
    """
    grades = [grade for group in samples.groups for grade in group.grades]
    finished = [c.finish_reason == "stop" for group in samples.groups for c in group.completions]
    numbers: dict[str, Any] = {
        "prompts": len(samples.groups),
        "samples": len(samples.groups[0].completions),
        "temperature": config.temperature,
        "tokens": sum(samples.completion_tokens),
        "completion_tokens_mean": mean_length(samples),
        "truncated": 1 - fmean(finished),
        "parse_failed": fmean(g.failure is not None and g.failure.kind.is_completions_fault for g in grades),
        "ungraded": fmean(grade.reward is None for grade in grades),
        "examples": examples(samples, EXAMPLES, EXAMPLE_CHARACTERS),
    }
    groups = rewards_by_prompt([group.grades for group in samples.groups])
    if not groups:
        return numbers | {"mean_reward": None, **NOT_KNOWN} | {"expected_signal": 0.0}
    rewards = [reward for group in groups for reward in group]
    scale = scale_of(config.reward_range, max(map(abs, rewards)))
    return {
        **numbers,
        "mean_reward": fmean(rewards),
        **(NOT_KNOWN if is_of_groups else expectations.shares(groups, scale)._asdict()),
        "group_size": config.group_size,
        "expected_signal": expectations.expected_signal(groups, config.group_size, scale),
    }


def base_findings(
    samples: Samples, base: Mapping[str, Any], config: TrainConfig, spec: GraderSpec | None = None
) -> Iterator[Finding]:
    """Yields what is to be told of the base's answers.

    `spec` is the job's grader, in place of which others may be advised.
    """
    if base["ungraded"] > 0:
        grades = [grade for group in samples.groups for grade in group.grades]
        why = "; ".join(first_messages(grades))
        severity: Severity = "error" if base["mean_reward"] is None else "warn"
        yield Finding("answers_ungraded", severity, f"{base['ungraded']:.0%} of the grades failed: {why}")
    if base["mean_reward"] is not None:
        others = other_graders(spec, samples.groups) if spec and _is_never_right(base) else []
        yield from _signal_findings(base, config, in_words(others))
    yield from _right_findings(base)
    if base["truncated"] > MUCH:
        message = f"{base['truncated']:.0%} of the answers were cut at max_completion_tokens."
        yield Finding("answers_truncated", "warn", message)
    if base["parse_failed"] > MUCH:
        message = (
            f"{base['parse_failed']:.0%} of the answers could not be read by the grader, and count as the"
            " least reward. A response_format, or an example in the prompt, helps."
        )
        yield Finding("answers_unreadable", "warn", message)


def _is_never_right(base: Mapping[str, Any]) -> bool:
    """Tells whether hardly any prompt's answers differ in reward, and nearly none is ever right."""
    return base["expected_signal"] < WEAK_SIGNAL and (base["never"] or 0.0) > MOSTLY


def _signal_findings(base: Mapping[str, Any], config: TrainConfig, instead: str = "") -> Iterator[Finding]:
    """Says so where no prompt's answers differ in reward, or few do, and what then helps.

    `instead` says which grader tells the answers apart.
    """
    instead = f" {instead}" if instead else ""
    completions = base["prompts"] * base["samples"]
    if base["expected_signal"] == 0:
        fails = completions >= COMPLETIONS and not config.allow_flat_reward
        why = _of_flat(base, scale_of(config.reward_range))
        message = (
            f"No prompt has answers with different rewards, in {completions} completions: there is nothing to"
            f" learn from. {why}{instead} Look at the example answers and their grades."
        )
        yield Finding("flat_reward", "error" if fails else "warn", message)
    elif base["expected_signal"] < WEAK_SIGNAL:
        which = "other" if base["never"] is None else "easier"
        if base["never"] is not None and base["always"] > base["never"]:
            which = "harder"
        message = (
            f"Only {base['expected_signal']:.0%} of the groups of {base['group_size']} answers would have"
            f" different rewards. Larger groups, {which} prompts or a grader with steps in between help."
            f"{instead}"
        )
        yield Finding("weak_signal", "warn", message)


def _of_flat(base: Mapping[str, Any], scale: Scale) -> str:
    """Says what it is that all answers get, and what to do about it."""
    if base["never"] is None:
        return "The answers to a prompt are the same, or the judge tells none of them apart."
    if base["always"] == 1:
        return "All are right, so nothing is left to learn: use harder rows, or a grader that asks for more."
    if base["always"] > 0:
        return (
            f"{base['always']:.0%} of the prompts are always right and the others never: use rows in between,"
            " or a grader that looks at the answer and not at the row alone."
        )
    if base["mean_reward"] > scale.wrong_to:
        return "They get the same without being right: the grader does not tell answers apart."
    return (
        "None is right: use easier rows, show the form of an answer in the prompt, or let the grader give"
        " part of the reward."
    )


def _right_findings(base: Mapping[str, Any]) -> Iterator[Finding]:
    if base["never"] is not None and base["never"] > MOSTLY:
        message = f"{base['never']:.0%} of the prompts got no right answer in {base['samples']} tries."
        yield Finding("mostly_never_right", "warn", message)
    if base["always"] is not None and base["always"] > MOSTLY:
        message = f"{base['always']:.0%} of the prompts are always right already: little is left to learn."
        yield Finding("mostly_always_right", "warn", message)


def suggested_length(samples: Samples, base: Mapping[str, Any], room: int) -> int:
    """Returns a `max_completion_tokens` for which few answers are cut; `room` is what the context leaves.

    It is half more than 95 of 100 finished answers need; twice the longest where many were cut.
    """
    completions = [each for group in samples.groups for each in group.completions]
    done = sorted(len(each.tokens) for each in completions if each.finish_reason == "stop")
    longest = max(samples.completion_tokens)
    wanted = 2 * longest if base["truncated"] > MUCH or not done else int(MARGIN * percentile(done, 95))
    return min(room, -(-wanted // LENGTH_UNIT) * LENGTH_UNIT)


def job_numbers(
    samples: Samples, base: Mapping[str, Any], config: TrainConfig, n_train: int, n_valid: int
) -> dict[str, Any]:
    """Returns the steps, tokens and seconds that the job would take, by what was measured here."""
    planned = planned_answers(config, n_train, n_valid)
    length = mean_length(samples)
    judged, each = planned.evaluated[0]
    probe = min(config.kl_probe_size, n_valid or n_train) * config.kl_probe_samples
    evaluated = planned.evaluations * (judged * each + probe)
    answers = planned.answers
    per_answer = length * samples.seconds_per_token + samples.seconds_per_grade
    signal = base["expected_signal"]
    learnt = answers * (signal + (1 - signal) / config.group_size)  # of a group without spread one is kept
    training = answers * per_answer + learnt * (samples.seconds_per_update or 0.0)
    seconds = (training + evaluated * per_answer) / config.speed_up(n_train)
    return {
        "steps": planned.steps,
        "sampled_tokens": round((answers + evaluated) * length),
        "grades": answers + planned.evaluations * judged * each,
        "seconds": seconds,
        "seconds_low": seconds / ROUGH,
        "seconds_high": seconds * ROUGH,
        "device": samples.device,
    }


def gain_numbers(samples: Samples, config: TrainConfig, n_train: int, n_valid: int) -> dict[str, Any] | None:
    """Returns the smallest gain that the job's evaluation can show; None if nothing was graded."""
    groups = rewards_by_prompt([group.grades for group in samples.groups])
    if not groups:
        return None
    rows = evaluation_rows(n_train, n_valid)
    evaluation = Judging(
        basis="unseen" if n_valid >= LEAST_UNSEEN else "training",
        rows=rows,
        samples=evaluation_samples(config, n_train, n_valid),
        looks=config.planned_looks(n_train),
    )
    scale = scale_of(config.reward_range)
    gain = smallest_gain(groups, evaluation, scale)
    return {**evaluation._asdict(), "smallest_gain": gain, "range": scale.high - scale.low}


def gain_findings(gain: Mapping[str, Any]) -> Iterator[Finding]:
    """Says so if only a large gain could be shown."""
    smallest = gain["smallest_gain"]
    if smallest is not None and smallest <= LARGE_GAIN * gain["range"]:
        return
    what = "no gain at all" if smallest is None else f"only a gain of {smallest:.2g} or more"
    rows, samples = gain["rows"], gain["samples"]
    whose = "validation" if gain["basis"] == "unseen" else "training"
    message = (
        f"With {rows} {whose} row{'' if rows == 1 else 's'} and {samples}"
        f" answer{'' if samples == 1 else 's'} for each, the job can show {what} (5 % one-sided, found in"
        " 80 % of jobs). More validation rows, or more eval_samples, show smaller ones."
    )
    yield Finding("gain_hard_to_show", "warn", message)
