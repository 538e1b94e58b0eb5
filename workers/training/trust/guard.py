"""Watches a run, and says what to do when it goes wrong: a state machine without a model in it.

Four things act. The exact KL of a probe above its limit: in a trial of 94 runs it was above 2 nats per token
in 50 of the 51 that had collapsed, and in none of the 27 sound ones. The loss on the canary above its limit:
what was learnt was paid for with what the model could do before. Numbers that are not finite. And a
validation that falls off its best while the KL is above its warning level, half the limit. All else (entropy,
lengths, gradients, ...) was as common in sound runs: it only calls for an early probe (symptoms.py).

What follows is the ladder of `_respond`: an update is skipped; beta or the rate changes; the run goes back to
its last good state and on from there with something changed; it ends. docs/trust.md tells it to users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from methods.train_config import TrainConfig
from workers.training.base.types import Action
from workers.training.trust.symptoms import Symptoms

WARNING_SHARE = 0.5
"""Share of the limit from which on the KL counts as high. In the trial of the module's docstring a KL above 1
was in all 51 collapsed runs, and in 16 of the 27 sound ones: too many to act on it alone.
"""
LEAST_LIMIT = 0.5
"""Nats per token below which no limit lies, however little entropy the base has: a sure model would else be
rolled back for rounding. Chosen, not measured.
"""
NON_FINITE_TIMES, NON_FINITE_STEPS = 2, 20
"""So many updates that are not finite within so many steps are more than one bad batch. Chosen, not measured.
"""
CLIFF_ERRORS, GOOD_ERRORS = 2.0, 1.0
"""Standard errors below the best validation at which one counts as fallen, and up to which as good. In the
trial of the module's docstring two evaluations in a row below the first bar were in 14 of 51 collapsed runs
and in 4 of 27 sound ones, hence the KL as a second condition.
"""
CLIFFS = 2
"""Fallen evaluations in a row that roll a run back: the same trial."""
ROWS_FOR_AN_ERROR = 4
"""Validation rows from which on a fall can be told from luck: three fall together by luck in one of eight.
Chosen as in evaluate.py.
"""
RATE_FACTOR, BETA_FACTOR = 0.5, 2.0
"""What the learning rate and beta are multiplied by. Chosen, not measured: three rollbacks leave an eighth of
the rate.
"""

Reason = Literal["kl", "canary", "non_finite", "validation"]
Kind = Literal["skip", "raise_beta", "lower_rate", "roll_back", "stop"]


class Alarm(NamedTuple):
    """Holds what is wrong: the number, and the bar that it crossed."""

    reason: Reason
    figures: dict[str, float]
    said: str
    is_mild: bool = False
    """The first sign of it, which takes no going back."""


class Seen(NamedTuple):
    """Holds what is known of a finished step.

    Attributes:
        step: from 0, which is the base's evaluation.
        total_steps: of the run.
        limit: the KL that acts, in nats per token (`kl_limit`).
        is_finite: whether loss and gradient of the update were.
        kl: the probe's, in nats per token; None where it was not measured.
        rows: rewards of an evaluation, by row; None where there was no evaluation.
        canary: by how much the loss on the canary is above the base's, in nats per token; None where it was
            not measured.
    """

    step: int
    total_steps: int
    limit: float
    is_finite: bool = True
    kl: float | None = None
    rows: Sequence[float | None] | None = None
    canary: float | None = None


@dataclass
class Guard:
    """Holds what the guard knows and has done. A part of the training state.

    Attributes:
        lr_scale: the learning rate is multiplied by it.
        beta_scale: beta is multiplied by it.
        rollbacks: times that the run went back.
        actions: actions so far, done or, with `warn`, only told.
        is_over: the guard has ended the run.
        good_step: the step whose weights it would go back to; 0 is the base.
        has_updated: some update was made.
        best: rewards, by row, of the best evaluation whose weights were not given up.
        cliffs: evaluations in a row that lay below the best.
        non_finite: recent steps whose update was not finite.
        warned: reasons told with `warn` that have not gone away since.
        symptoms: what calls for early probes.
    """

    lr_scale: float = 1.0
    beta_scale: float = 1.0
    rollbacks: int = 0
    actions: int = 0
    is_over: bool = False
    good_step: int = 0
    has_updated: bool = False
    best: list[float | None] = field(default_factory=list)
    cliffs: int = 0
    non_finite: list[int] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    symptoms: Symptoms = field(default_factory=Symptoms)

    def early_probe(self, step: int, values: Mapping[str, float], limit: float) -> list[str] | None:
        """Takes in a step's metrics; returns None, or what calls for measuring the KL now (symptoms.py)."""
        return self.symptoms.after(step, values, WARNING_SHARE * limit)

    def after(self, seen: Seen, config: TrainConfig) -> Action | None:
        """Takes in a finished step; returns what is to be done, and counts it as done. At most one thing."""
        self.has_updated |= seen.is_finite and seen.step > 0
        best = self.best
        is_level = self._judge(seen.rows)
        alarm = self._alarm(seen, config.guard_canary)
        if alarm is not None:
            action = self._respond(seen, alarm, config)
            if action is not None and action.gives_up_weights:
                self.best = best  # what is given up is no bar for what comes
            return action
        if seen.kl is not None:
            self.warned = []
            is_near = seen.kl < WARNING_SHARE * seen.limit
            remembers = (seen.canary or 0.0) < WARNING_SHARE * config.guard_canary
            if is_level and seen.rows is not None and is_near and remembers:
                self.good_step = seen.step
        return None

    def _judge(self, rows: Sequence[float | None] | None) -> bool:
        """Compares an evaluation with the best, row by row; says whether it is as good within its error."""
        if not rows:
            return True
        fall, error = _fall(rows, self.best)
        self.cliffs = self.cliffs + 1 if fall > CLIFF_ERRORS * error else 0
        if fall < 0 or not self.best:
            self.best = list(rows)
        return fall <= GOOD_ERRORS * error

    def _alarm(self, seen: Seen, most_canary: float) -> Alarm | None:
        """Returns what is worst: an update that is not finite hides nothing else of the same step."""
        skipped = None if seen.is_finite else self._not_finite(seen.step)
        if skipped is not None and not skipped.is_mild:
            return skipped
        return self._measured_alarm(seen, most_canary) or skipped

    def _measured_alarm(self, seen: Seen, most_canary: float) -> Alarm | None:
        if seen.kl is None:
            return None
        high = WARNING_SHARE * seen.limit
        if not math.isfinite(seen.kl):
            return Alarm("non_finite", {"threshold": seen.limit}, "the KL to the start is not finite")
        if seen.kl > seen.limit:
            said = f"the KL to the start is {seen.kl:.3g} nats per token, above {seen.limit:.3g}"
            return Alarm("kl", {"kl": seen.kl, "threshold": seen.limit}, said)
        if seen.canary is not None and not seen.canary <= most_canary:
            said = (
                f"the loss on the canary has risen by {seen.canary:.3g} nats per token, above {most_canary:g}"
            )
            return Alarm("canary", {"canary": seen.canary, "threshold": most_canary}, said)
        if seen.rows and self.cliffs and seen.kl > high:
            said = (
                f"the evaluation is more than {CLIFF_ERRORS:.0f} standard errors below the best one, and the"
                f" KL to the start is {seen.kl:.3g} nats per token, above {high:.3g}"
            )
            figures = {"kl": seen.kl, "threshold": high, "evaluations": float(self.cliffs)}
            return Alarm("validation", figures, said, is_mild=self.cliffs < CLIFFS)
        return None

    def _not_finite(self, step: int) -> Alarm:
        self.non_finite = [at for at in self.non_finite if at > step - NON_FINITE_STEPS] + [step]
        times = len(self.non_finite)
        said = f"loss or gradient was not finite, {times} of the last {NON_FINITE_STEPS} times"
        figures = {"times": float(times), "threshold": float(NON_FINITE_TIMES)}
        return Alarm("non_finite", figures, said, is_mild=times < NON_FINITE_TIMES)

    def _respond(self, seen: Seen, alarm: Alarm, config: TrainConfig) -> Action | None:
        is_done = config.guard == "act"
        if not is_done:
            if alarm.reason in self.warned:
                return None
            self.warned.append(alarm.reason)
        kind, done = self._choose(seen, alarm, config)
        self.actions += 1
        if is_done:
            self._apply(kind)
            message = f"Guard, action {self.actions}, step {seen.step}: {alarm.said}. {done}"
        else:
            message = f"Guard, step {seen.step}: {alarm.said}. It only warns; with guard `act`: {done}"
        figures = {**alarm.figures, "lr_scale": self.lr_scale, "beta_scale": self.beta_scale}
        return Action(seen.step, self.actions, kind, alarm.reason, message, figures, is_done)

    def _choose(self, seen: Seen, alarm: Alarm, config: TrainConfig) -> tuple[Kind, str]:
        """Returns the action that an alarm takes, and what is done in a sentence or two."""
        if alarm.is_mild:
            if alarm.reason == "non_finite":
                return "skip", "The update was skipped."
            if config.beta > 0:
                return "raise_beta", f"beta is multiplied by {BETA_FACTOR:.0f}."
            return "lower_rate", f"The learning rate is multiplied by {RATE_FACTOR}."
        if seen.step == seen.total_steps:
            return "stop", "This was the last step: its weights are no checkpoint."
        if self.rollbacks >= config.guard_rollbacks:
            times = f"guard_rollbacks allows {config.guard_rollbacks}, which are used up"
            return "stop", f"The run ends here: {times}. What it delivers is chosen as at its end."
        held = f", and beta by {BETA_FACTOR:.0f}" if config.beta > 0 else ""
        return "roll_back", (
            f"Weights and optimizer are again those after step {self.good_step}, the last good one; the"
            f" learning rate is multiplied by {RATE_FACTOR}{held}."
        )

    def _apply(self, kind: Kind) -> None:
        if kind in {"lower_rate", "roll_back"}:
            self.lr_scale *= RATE_FACTOR
        if kind in {"raise_beta", "roll_back"}:
            self.beta_scale *= BETA_FACTOR
        if kind == "roll_back":
            self.rollbacks += 1
            self.cliffs = 0
            self.non_finite = []
        self.is_over |= kind == "stop"


def kl_limit(config: TrainConfig, base_entropy: float | None) -> float:
    """Returns the probe KL that acts, nats per token: `guard_kl`, or less of a base with little entropy.

    The entropy is the base's, in nats per token; None before it is known.
    """
    if base_entropy is None:
        return config.guard_kl
    return min(config.guard_kl, max(config.guard_kl_share * base_entropy, LEAST_LIMIT))


def guard_from_json(facts: Mapping[str, Any]) -> Guard:
    """Returns what `dataclasses.asdict` made of a guard; a fresh one of a state from before there was any."""
    return Guard(**{**facts, "symptoms": Symptoms(**facts.get("symptoms", {}))})


def _fall(rows: Sequence[float | None], best: Sequence[float | None]) -> tuple[float, float]:
    """Returns how far rows lie below the best ones, and the standard error; no error is infinite.

    Both are in grader units, over the rows that have a reward in both.
    """
    pairs = zip(best, rows, strict=True) if best else ()
    falls = [b - a for b, a in pairs if a is not None and b is not None]
    if len(falls) < ROWS_FOR_AN_ERROR:
        return 0.0, math.inf
    mean = math.fsum(falls) / len(falls)
    variance = math.fsum((fall - mean) ** 2 for fall in falls) / (len(falls) - 1)
    return mean, math.sqrt(variance / len(falls))
