"""How many tokens share a pass through the model: chosen once for a run, halved where memory runs out.

A pass bounds memory and changes no result beyond rounding, so work that ran out of memory is done again in
smaller passes from the same weights. Processes agree on it when all have ended their passes, never inside of
one, so that nobody waits for a process that has failed.
"""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from workers.training.base.device_memory import free_bytes
from workers.training.base.distributed import ALONE, World
from workers.training.base.errors import OutOfMemory, PassTooLarge

T = TypeVar("T")
log = logging.getLogger(__name__)

USUAL_TOKENS = 16_384
"""Tokens of a pass on a CPU, and the most that are chosen on a GPU. Chosen: what shares a pass shares the
reading of the weights, and beyond a few thousand tokens the products take all the time."""


@dataclass
class PassesMade:
    """Says how passes are made, as a run's state keeps it. None: nothing was decided yet."""

    tokens: int | None = None
    recomputes: bool = False


class Failure(NamedTuple):
    """Holds what is known of a pass that ran out of memory.

    Attributes:
        tokens: that it had.
        sequences: that shared it; one cannot be split.
        free: bytes of the device when all of the pass had been let go; None where that is not known.
        said: what PyTorch said.
    """

    tokens: int
    sequences: int
    free: int | None
    said: str


class Halved(NamedTuple):
    """Says that passes have become smaller, and by what."""

    before: int
    now: int
    failure: Failure


Tell = Callable[[Halved], None]
Explain = Callable[[Failure], str]


class PassTokens:
    """Holds the most tokens of a pass, of one run on one device."""

    def __init__(
        self,
        most: int = USUAL_TOKENS,
        device: torch.device | None = None,
        world: World = ALONE,
        *,
        is_sharded: bool = False,
    ) -> None:
        """`is_sharded` says that passes wait for other processes, so that none can fail alone and go on."""
        self.most = most
        self.tell: Tell = _log
        """Is told when passes become smaller."""
        self.explain: Explain = _in_short
        """Says what a sequence that does not fit would need, and what would fit."""
        self.make_room: Callable[[], object] = lambda: None
        """Gives back memory that can be had again, before work is done once more."""
        self._device = torch.device("cpu") if device is None else device
        self._world = world
        self._is_sharded = is_sharded
        self._under_way = (0, 1)

    def begin(self, tokens: int, sequences: int) -> None:
        """Takes note of the pass that begins."""
        self._under_way = tokens, sequences

    def attempt(self, work: Callable[[], T]) -> T:
        """Returns what `work` gives, which makes passes of at most `most` tokens and calls no other process.

        Where memory runs out in any process, `most` is halved in all, and all do their work again, with the
        random numbers of its start: it must begin anew whatever it has changed. It is collective. Raises
        `OutOfMemory` where a single sequence does not fit, and `PassTooLarge` for a sharded model.
        """
        while True:
            numbers = torch.get_rng_state()
            found, failure = self._try(work)
            if self._is_sharded:
                # The others wait inside of their passes: this process has to end, and torchrun ends them.
                if failure is not None:
                    raise self._too_large(failure)
                return found[0]
            failures = [one for one in self._world.gather(failure) if one is not None]
            if not failures:
                return found[0]
            torch.set_rng_state(numbers)
            self.halve(failures)

    @contextmanager
    def watched(self) -> Iterator[list[Failure]]:
        """Gives a list that holds a failure afterwards where what runs inside ran out of memory."""
        failures: list[Failure] = []
        try:
            yield failures
        except torch.OutOfMemoryError as error:
            said = str(error)
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            failures.append(Failure(*self._under_way, None, said))
        if failures:
            failures[0] = failures[0]._replace(free=self._let_go())

    def halve(self, failures: list[Failure]) -> None:
        """Makes passes half as large as the one that failed. Raises `OutOfMemory` for a single sequence."""
        worst = max(failures, key=lambda failure: (failure.sequences == 1, failure.tokens))
        if worst.sequences <= 1:
            raise OutOfMemory(self.explain(worst))
        before, self.most = self.most, self._half_of(worst)
        self.tell(Halved(before, self.most, worst))

    def _half_of(self, failure: Failure) -> int:
        return max(1, min(self.most, failure.tokens) // 2)

    def _too_large(self, failure: Failure) -> PassTooLarge:
        if failure.sequences <= 1:
            return PassTooLarge(f"{self.explain(failure)} {SHARDED}", failure.tokens)
        half = self._half_of(failure)
        said = f"A pass of {failure.tokens:,} tokens ran out of the device's memory."
        return PassTooLarge(f"{said} {SHARDED} The next attempt has at most {half:,} tokens a pass.", half)

    def _try(self, work: Callable[[], T]) -> tuple[list[T], Failure | None]:
        found: list[T] = []
        with self.watched() as failures:
            found.append(work())
        return found, failures[0] if failures else None

    def _let_go(self) -> int | None:
        """Frees what the failed pass has left; returns what is free then."""
        self.make_room()
        gc.collect()  # a graph and its nodes refer to each other
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return free_bytes(self._device)


SHARDED = (
    "The weights are split over processes (sharding 'fsdp'), which wait for each other inside of a pass, so"
    " the step cannot be repeated in smaller ones here."
)


def in_words(halved: Halved) -> str:
    """Returns the sentence that a run's events have of it."""
    failure = halved.failure
    free = "" if failure.free is None else f" {failure.free / 2**30:,.1f} GiB are free without it."
    return (
        f"A pass of {failure.tokens:,} tokens ({failure.sequences} sequences) ran out of the device's memory."
        f"{free} From now on a pass has at most {halved.now:,} tokens, {halved.before:,} before; what was"
        " under way is done again from the same weights. That changes no result beyond rounding."
    )


def _log(halved: Halved) -> None:
    log.warning("pass_halved", extra={"before": halved.before, "now": halved.now})


def _in_short(failure: Failure) -> str:
    free = "" if failure.free is None else f" {failure.free / 2**30:,.1f} GiB were free without it."
    return f"A pass of one sequence of {failure.tokens:,} tokens does not fit the device's memory.{free}"
