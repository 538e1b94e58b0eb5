"""What the sampler asks of completions that have several turns. It knows no environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from workers.training.base.types import Completion


@dataclass(frozen=True, eq=False)
class Beginning:
    """Is what completions go on from: a prompt, or all of an episode so far.

    Attributes:
        tokens: what is read before the next one is drawn.
        rows: which completions go on from here, by their number in the call.
        written: tokens that each has already, sampled and given.
        most: tokens that may be sampled in this turn; 0 leaves that to the sampler.
    """

    tokens: tuple[int, ...]
    rows: Sequence[int]
    written: int = 0
    most: int = 0


class Over(NamedTuple):
    """Is a completion that has ended: the n-th sample of a prompt of the call."""

    prompt: int
    sample: int
    completion: Completion


class Turns(Protocol):
    """Decides which completions go on after what the policy has written, and with what."""

    @property
    def are_open(self) -> bool:
        """Says whether anything was written whose outcome `next` has not returned yet."""

    def end(self, prompt: int, sample: int, written: Completion) -> None:
        """Takes what the policy has written in one turn."""

    def next(self, *, wait: bool) -> list[Beginning | Over]:
        """Returns what has come of earlier turns since; with `wait`, at least one of what is open."""
