"""Which of a job's seeds go on after a rung: by what the guard had to do, then by gain, then by drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from methods.halving import better_half


class Standing(NamedTuple):
    """Says how an arm has done so far.

    Attributes:
        arm: its number.
        seed: of its random numbers.
        is_ended: the guard has ended it, or it diverged.
        rollbacks: times that it went back to a good state.
        gain: of its best evaluation over the base, in grader units; None without any that was graded.
        kl: nats per token from the base to that one.
    """

    arm: int
    seed: int
    is_ended: bool
    rollbacks: int
    gain: float | None
    kl: float | None

    def __str__(self) -> str:
        gain = (
            "no graded evaluation" if self.gain is None else f"gain {self.gain:+.3g} at a KL of {self.kl:.2g}"
        )
        times = "once" if self.rollbacks == 1 else f"{self.rollbacks} times"
        rolled = f", rolled back {times}" if self.rollbacks else ""
        return f"{self.seed} ({gain}{rolled}{', given up' if self.is_ended else ''})"


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Returns them best first: those that the guard left alone, then the larger gain, then the lower KL."""

    def key(one: Standing) -> tuple[bool, int, bool, float, float, int]:
        return one.is_ended, one.rollbacks, one.gain is None, -(one.gain or 0.0), one.kl or 0.0, one.arm

    return sorted(standings, key=key)


def halve(standings: Sequence[Standing]) -> tuple[list[Standing], list[Standing]]:
    """Returns those that go on, the better half rounded up, and those that do not; best first."""
    best_first = ranked(standings)
    go_on = better_half(len(best_first))
    return best_first[:go_on], best_first[go_on:]


def halved_in_words(number: int, of: int, go_on: Sequence[Standing], lost: Sequence[Standing]) -> str:
    """Says after a rung who goes on and why."""
    word, goes = ("Seed", "goes") if len(go_on) == 1 else ("Seeds", "go")
    return (
        f"Halving {number} of {of}: {word} {_listed(go_on)} {goes} on; {_listed(lost)} ended. They are ranked"
        " by what the guard had to do, then by the gain over the base, then by the KL."
    )


def saved_in_words(seeds: int, steps: int, total: int, seconds: float) -> str:
    """Says what halving has saved against training all seeds to the end; `steps` and `seconds` are spent."""
    full = seeds * total
    each = seconds / max(steps, 1)
    return (
        f"{seeds} seeds took {steps:,} steps and {seconds:.0f} seconds of training. To the end they would"
        f" have taken {full:,} steps, about {full * each:.0f} seconds: halving and early ends saved"
        f" {full - steps:,} steps, about {(full - steps) * each:.0f} seconds."
    )


def _listed(standings: Sequence[Standing]) -> str:
    *first, last = map(str, standings)
    return f"{', '.join(first)} and {last}" if first else last
