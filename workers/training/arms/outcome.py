"""What comes of a job with several arms: one verdict over all its seeds, and how each of them has done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from methods.paired import LEVEL
from methods.train_config import TrainConfig
from workers.training.arms.recorder import Whose
from workers.training.arms.states import JobProgress
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import deliverable
from workers.training.evaluate import estimate
from workers.training.result import ArmResult, ControlResult, RunResult
from workers.training.state import Progress
from workers.training.trust.gold import gold_outcome
from workers.training.trust.halving import Standing
from workers.training.trust.selection import Judged, Look, judge
from workers.training.trust.verdict import Verdict, verdict


def standing(whose: Whose, progress: Progress, seed: int, is_failed: bool) -> Standing:
    """Returns how an arm has done so far; `seed` is that of the test, `is_failed` says that it diverged."""
    best = best_of(judge(progress.looks, seed))
    return Standing(
        whose.number,
        whose.seed,
        progress.guard.is_over or is_failed,
        progress.guard.rollbacks,
        best.mean if best else None,
        best.kl if best else None,
    )


def best_of(judged: Sequence[Judged]) -> Judged | None:
    """Returns the checkpoint with the largest gain, of equals that with the lowest KL; None without any."""
    stayed = [one for one in judged if not one.is_given_up]
    return min(stayed, key=lambda one: (-one.mean, one.kl), default=None)


def job_looks(job: JobProgress, arm: int, looks: Sequence[Look]) -> list[Look]:
    """Returns an arm's looks but the base's, by the job's steps."""
    return [look._replace(step=job.segments.of(arm, look.step)) for look in looks if look.step > 0]


def kept_checkpoints(job: JobProgress, arms: Sequence[Whose]) -> dict[int, Checkpoint]:
    """Returns the seeds' checkpoints whose files are there, by the job's steps."""
    return {
        (step := job.segments.of(whose.number, one.step)): replace(one, step=step)
        for whose in reversed(arms)
        for one in job.arms[whose.number].kept
    }


def result(
    config: TrainConfig,
    job: JobProgress,
    seeds: Sequence[Whose],
    controls: Sequence[Whose],
    ended: Mapping[int, str],
) -> RunResult:
    """Returns what is delivered of a job that is over. `seeds` are those that have begun, the best first.

    `ended` says how each arm has.
    """
    assert job.sampled is not None
    seed = config.measuring_seed
    base, *_ = job.arms[seeds[0].number].looks
    own = {w.number: job_looks(job, w.number, job.arms[w.number].looks) for w in seeds}
    # The last look is the one that may be called worse than the base: the best seed's.
    looks = [base, *(look for whose in reversed(seeds) for look in own[whose.number])]
    kept = deliverable(list(kept_checkpoints(job, seeds).values()), config)
    found = verdict(looks, kept, job.sampled, seed)
    judged = judge(looks, seed)
    results = [
        _arm_result(job, whose, ended[whose.number], own[whose.number], judged, found.step) for whose in seeds
    ]
    beside = [_control_result(config, job, whose, ended[whose.number]) for whose in controls]
    gold = [look for whose in seeds for look in job_looks(job, whose.number, job.arms[whose.number].gold)]
    base_gold = job.arms[seeds[0].number].gold[:1]
    return RunResult(
        best=kept[found.step],
        steps=job.step,
        trained_tokens=sum(progress.trained_tokens for progress in job.arms.values()),
        verdict=_with_words(found, results, beside),
        judged=judged,
        gold=gold_outcome([*base_gold, *gold], found.step, seed),
        arms=sorted(results, key=lambda one: not one.is_delivered) if config.n_seeds > 1 else [],
        controls=beside,
    )


def _arm_result(
    job: JobProgress,
    whose: Whose,
    ended: str,
    looks: Sequence[Look],
    judged: Sequence[Judged],
    delivered: int,
) -> ArmResult:
    progress, by_step = job.arms[whose.number], {look.step: look for look in looks}
    best = best_of([one for one in judged if one.step in by_step])
    reward = estimate(by_step[best.step].rows) if best else None
    return ArmResult(
        seed=whose.seed,
        steps=progress.step,
        reward=reward.mean if reward else None,
        gain=best.mean if best else None,
        low=best.low if best else None,
        high=best.high if best else None,
        p=best.p if best else None,
        kl=best.kl if best else None,
        best_step=best.step if best else None,
        guard_actions=progress.guard.actions,
        rollbacks=progress.guard.rollbacks,
        ended=ended,
        rung=next((n for n, left in enumerate(job.went_on, 1) if whose.number not in left), None),
        is_delivered=delivered in by_step,
    )


def _control_result(config: TrainConfig, job: JobProgress, whose: Whose, ended: str) -> ControlResult:
    """Compares a control with the job's own seed, at the same steps and by tests of the same size."""
    progress = job.arms.get(whose.number, Progress())
    best = best_of(judge(progress.looks, config.measuring_seed))
    real = [look for look in job.arms[0].looks if look.step <= progress.step]
    beside = best_of(judge(real, config.measuring_seed))
    return ControlResult(
        kind="random_reward",
        steps=progress.step,
        gain=best.mean if best else None,
        low=best.low if best else None,
        high=best.high if best else None,
        p=best.p if best else None,
        real_gain=beside.mean if beside else None,
        ended=ended,
    )


def _with_words(found: Verdict, seeds: Sequence[ArmResult], controls: Sequence[ControlResult]) -> Verdict:
    said = found.sentence
    delivered = next((one for one in seeds if one.is_delivered), None)
    if delivered is not None and len(seeds) > 1:
        said += f" It is one of seed {delivered.seed}, of {len(seeds)} that were trained."
    for control in controls:
        said += control_in_words(control)
    return found._replace(sentence=said)


def control_in_words(control: ControlResult) -> str:
    """Returns the sentence on a control that has gained too, after a space; nothing of any other."""
    if control.gain is None or control.p is None or control.p > LEVEL or control.gain <= 0:
        return ""
    what = f"{control.gain:+.3g} ({control.low:+.3g} to {control.high:+.3g})"
    if control.real_gain is None or control.gain >= control.real_gain:
        return (
            f" A reward drawn by lot gained as much within {control.steps} steps: {what}. So the gain is no"
            " sign that the grader's judgement was learnt."
        )
    return (
        f" A reward drawn by lot gained too within {control.steps} steps: {what}, where the real one gained"
        f" {control.real_gain:+.3g}. That part of the gain owes nothing to the grader's judgement."
    )
