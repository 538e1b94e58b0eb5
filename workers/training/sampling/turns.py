"""What the sampler asks of completions that have several turns. It knows no environment."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from workers.training.base.types import Completion


class GoesOn(NamedTuple):
    """Is a completion that goes on, the n-th sample of a prompt of the call, by what has come back.

    Attributes:
        tokens: prompt and all that has followed.
        written: how many of them have followed the prompt.
        most: tokens that may be sampled in its next turn.
        turn: how many turns it has had.
    """

    prompt: int
    sample: int
    tokens: tuple[int, ...]
    written: int
    most: int
    turn: int = 1


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

    def next(self, *, wait: bool) -> list[GoesOn | Over]:
        """Returns what has come of earlier turns since; with `wait`, at least one of what is open."""
