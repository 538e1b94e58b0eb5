"""What is delivered and what is said of it: one verdict for each run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from workers.training.trust.selection import Judged, Look, choose, is_worse, judge

Basis = Literal["unseen", "training"]
Kind = Literal["better_unseen", "better_training", "not_distinguishable", "worse"]


class Verdict(NamedTuple):
    """Says how a run ended, for its owner.

    Attributes:
        kind: better on unseen rows or on the training rows, not distinguishable from the base, or worse.
        basis: the rows that say so: never trained on, or sampled afresh from the training rows.
        step: the delivered checkpoint's; 0 is the base.
        sentence: the same in words.
        rows: evaluation rows.
        samples: completions of each.
        temperature: at which they were sampled.
        looks: checkpoints that were compared with the base.
        gain: of the delivered checkpoint, or of the best where the base is delivered; None of none.
        low: its one-sided 95 % lower bound over all looks.
        high: the upper one.
        p: its adjusted p.
        kl: nats per token from the starting policy to what is delivered.
    """

    kind: Kind
    basis: Basis
    step: int
    sentence: str
    rows: int
    samples: int
    temperature: float
    looks: int
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    kl: float = 0.0


class Sampled(NamedTuple):
    """How evaluation rows are sampled."""

    basis: Basis
    rows: int
    samples: int
    temperature: float

    @property
    def compared(self) -> int:
        """Returns how many numbers a checkpoint is compared by: rows, or completions of training rows."""
        return self.rows if self.basis == "unseen" else self.rows * self.samples

    def __str__(self) -> str:
        whose = "validation rows" if self.basis == "unseen" else "training rows, sampled afresh"
        how = "greedily" if self.temperature == 0 else f"at temperature {self.temperature:g}"
        times = "once" if self.samples == 1 else f"{self.samples} times"
        return f"{self.rows} {whose} ({times} each, {how})"


def verdict(looks: Sequence[Look], kept: Collection[int], sampled: Sampled, seed: int) -> Verdict:
    """Returns what is to be delivered, among the steps whose files are `kept`, and what is said of it."""
    judged = judge(looks, seed)
    how = (sampled.rows, sampled.samples, sampled.temperature, len(judged))
    chosen = choose(judged, kept)
    if chosen is not None:
        kind: Kind = "better_unseen" if sampled.basis == "unseen" else "better_training"
        said = _better(chosen, len(judged), sampled)
        return Verdict(kind, sampled.basis, chosen.step, said, *how, *_numbers(chosen), chosen.kl)
    kind = "worse" if is_worse(looks, seed) else "not_distinguishable"
    if len(looks) == 1:
        said = "Not distinguishable from the base: no checkpoint was made. The base is delivered."
        return Verdict(kind, sampled.basis, 0, said, *how)
    if not judged:
        said = (
            "Not distinguishable from the base: no checkpoint has a graded answer to a row that the base has"
            " one to. The base is delivered."
        )
        return Verdict(kind, sampled.basis, 0, said, *how)
    stayed = [one for one in judged if not one.is_given_up]
    if not stayed:
        said = (
            "Not distinguishable from the base: the guard gave up what was measured at each of"
            f" {_evaluations(len(judged))}, so that there is no checkpoint. The base is delivered."
        )
        return Verdict(kind, sampled.basis, 0, said, *how)
    best = stayed[-1] if kind == "worse" else max(stayed, key=lambda one: one.mean)
    return Verdict(kind, sampled.basis, 0, _no_better(kind, best, judged, sampled), *how, *_numbers(best))


def _numbers(one: Judged) -> tuple[float, float, float, float]:
    return one.mean, one.low, one.high, one.p


def _better(one: Judged, looks: int, sampled: Sampled) -> str:
    where = "unseen rows" if sampled.basis == "unseen" else "the training rows"
    said = (
        f"Better on {where}: the checkpoint of step {one.step} gains {_gain(one)} over the base on {sampled},"
        f" {_p(one, looks)}. It is {one.kl:.2g} nats per token from its start, and is delivered."
    )
    if sampled.basis == "training":
        said += " Whether it is better on rows that it never saw was not measured: give a validation_file."
    return said


def _no_better(kind: Kind, one: Judged, judged: Sequence[Judged], sampled: Sampled) -> str:
    if kind == "worse":
        return (
            f"Worse than the base: the last checkpoint, of step {one.step}, gains {_gain(one)} on {sampled}."
            " The base is delivered."
        )
    return (
        f"Not distinguishable from the base: the best of {_checkpoints(len(judged))}, of step {one.step},"
        f" gains {_gain(one)} on {sampled}, {_p(one, len(judged))}. The base is delivered."
    )


def _gain(one: Judged) -> str:
    return f"{one.mean:+.3g} ({one.low:+.3g} to {one.high:+.3g})"


def _p(one: Judged, looks: int) -> str:
    return f"p {one.p:.2g} over {_checkpoints(looks)}"


def _evaluations(number: int) -> str:
    return "1 evaluation" if number == 1 else f"{number} evaluations"


def _checkpoints(number: int) -> str:
    return "1 checkpoint" if number == 1 else f"{number} checkpoints"
