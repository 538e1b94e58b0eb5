"""What may go before a collapse: it is told once, and calls for an early measurement of the KL.

None of it acts. In the trial of guard.py, entropy below a tenth of the first was in 13 of 51 collapsed runs
and 6 of 27 sound ones, jumps of the gradient in 8 and 9, no spread for ten steps in 33 and 10. The KL of the
batch above the limit was in 45 and 4, and led the fall of the reward by 9 to 13 steps, so it may call again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from methods import metrics as names

STEPS_BETWEEN_PROBES = 5
"""Fewest steps from one early probe to the next. Chosen so that they cost no more than those of evaluations,
which are at least five steps apart by default.
"""
STEPS_IN_A_ROW = 3
"""Steps that a symptom has to last, but for jumps: a step's shares and means are of some 64 completions.
Chosen, not measured.
"""
STEPS_WITHOUT_SPREAD = 10
"""Steps in a row without spread: the trial's bar (see above)."""
SHARE_ABOVE_FIRST = 0.15
"""Rise of the share of cut or unreadable completions over that of the first step. Chosen, not measured."""
LEAST_LENGTH, MOST_LENGTH = 0.5, 2.0
"""Mean length, as a multiple of the first step's. Chosen, not measured."""
LEAST_ENTROPY, MOST_ENTROPY = 0.1, 2.0
"""Entropy, as a multiple of the first update's: the trial's lower bar; the upper one was chosen, not
measured.
"""
NORM_JUMP, NORMS_KEPT, NORMS_KNOWN = 10.0, 50, 5
"""A gradient's norm, as a multiple of the median of the last fifty, if five are known. Chosen, not measured.
"""
MOST_MISMATCH = 0.05
"""The mean gap between the sampler's and the trainer's logprobs for the same weights, in nats. In a trial the
engine's own was a factor of 1.0000 in fp32 and 1.004 to 1.015 in bf16 (mean of exp |gap|); NeMo-RL's recipe
alarms at 1.05.
"""

TINY = 1e-9
"""Stands for a first value of 0 in a quotient. Chosen, not measured."""

PARSE_ERRORS = names.PARSE_ERROR_SHARE.format(split="train")
TRUNCATED = names.TRUNCATED_SHARE.format(split="train")
LENGTH = names.COMPLETION_TOKENS_MEAN.format(split="train")


@dataclass
class Symptoms:
    """Holds how long each has lasted. A part of the training state.

    Attributes:
        first: what each metric was at first.
        lasted: steps in a row that each symptom has been there.
        told: those that were told.
        norms: the last norms of gradients.
        probed: the step of the last early probe; None before.
    """

    first: dict[str, float] = field(default_factory=dict)
    lasted: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    probed: int | None = None

    def after(self, step: int, values: Mapping[str, float], high_kl: float) -> list[str] | None:
        """Takes in a step's metrics; returns None, or what calls for measuring the KL now, a sentence each.

        Each symptom calls once, the KL of the batch as long as it is above `high_kl`; it has its sentence
        once.
        """
        found = self._lasting(values, high_kl)
        if self.probed is not None and step - self.probed < STEPS_BETWEEN_PROBES:
            return None
        new = {name: said for name, said in found.items() if name not in self.told}
        if not new and names.KL_REFERENCE not in found:
            return None
        self.probed = step
        self.told += new
        return list(new.values())

    def _lasting(self, values: Mapping[str, float], high_kl: float) -> dict[str, str]:
        """Returns the symptoms that have now lasted long enough, with a sentence each."""
        seen = {symptom.name: symptom for symptom in self._seen(values, high_kl)}
        self.lasted = {name: self.lasted.get(name, 0) + 1 for name in seen}
        return {name: each.said for name, each in seen.items() if self.lasted[name] >= each.steps}

    def _seen(self, values: Mapping[str, float], high_kl: float) -> Iterator[_Symptom]:
        """Yields the symptoms of one step; of what was not measured, none."""
        for name in (PARSE_ERRORS, TRUNCATED, LENGTH, names.ENTROPY_MEAN):
            if name in values:
                self.first.setdefault(name, values[name])
        for name, label in ((PARSE_ERRORS, "cannot be parsed"), (TRUNCATED, "are cut")):
            now, first = values.get(name, 0.0), self.first.get(name, 0.0)
            if now > first + SHARE_ABOVE_FIRST:
                yield _Symptom(name, f"{now:.0%} of the completions {label}, {first:.0%} at first")
        for name, label, low, high in (
            (LENGTH, "tokens a completion", LEAST_LENGTH, MOST_LENGTH),
            (names.ENTROPY_MEAN, "nats of entropy a token", LEAST_ENTROPY, MOST_ENTROPY),
        ):
            if name in values and not low <= values[name] / max(self.first[name], TINY) <= high:
                yield _Symptom(name, f"{values[name]:.3g} {label}, {self.first[name]:.3g} at first")
        if values.get(names.NO_SPREAD_SHARE) == 1.0:
            said = f"no prompt's completions have differed in reward for {STEPS_WITHOUT_SPREAD} steps"
            yield _Symptom(names.NO_SPREAD_SHARE, said, STEPS_WITHOUT_SPREAD)
        if (gap := values.get(names.SAMPLER_MISMATCH, 0.0)) > MOST_MISMATCH:
            yield _Symptom(
                names.SAMPLER_MISMATCH, f"sampler and trainer differ by {gap:.3g} nats per token", 1
            )
        if (kl := values.get(names.KL_REFERENCE, 0.0)) > high_kl:
            said = f"the KL of the step's completions is {kl:.3g} nats per token, above {high_kl:.3g}"
            yield _Symptom(names.KL_REFERENCE, said, 1)
        if (norm := values.get(names.GRAD_NORM)) is not None:
            usual = statistics.median(self.norms) if len(self.norms) >= NORMS_KNOWN else norm
            self.norms = [*self.norms, norm][-NORMS_KEPT:]
            if norm > NORM_JUMP * usual:
                yield _Symptom(names.GRAD_NORM, f"the gradient's norm is {norm:.3g}, usually {usual:.3g}", 1)


class _Symptom(NamedTuple):
    """Is one thing seen in one step, and how many steps in a row it has to be there."""

    name: str
    said: str
    steps: int = STEPS_IN_A_ROW
