"""What waits to be sampled: prompts, and episodes that go on; which of it is read together, and when."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SamplerLimits:
    """Bounds memory and waste of one call of the sampler. It changes no completion.

    All were chosen, not measured.

    Attributes:
        slots: most completions decoded side by side; None for 256 on a CPU, and as many as find memory on a
            GPU (`graphed.shapes`).
        first_columns: tokens of a completion that the cache holds at first; it doubles as completions grow.
        prefill_tokens: most padded prompt tokens in one forward pass.
        prefill_padding: padding, in tokens, up to which prompts of different lengths are run together; above
            it, up to a quarter of the pass may be padding.
    """

    slots: int | None = None
    first_columns: int = 512
    prefill_tokens: int = 16_384
    prefill_padding: int = 256


LIMITS = SamplerLimits()


@dataclass(frozen=True, eq=False)
class Beginning:
    """Is what completions go on from: a prompt, or a prompt and all that has followed of one completion.

    Attributes:
        tokens: what is read before the next one is drawn.
        rows: which completions go on from here, by number.
        turn: how many turns they have had.
    """

    tokens: tuple[int, ...]
    rows: Sequence[int]
    turn: int = 0


class Waiting:
    """Keeps what waits in the order in which it is taken."""

    def __init__(self, beginnings: Iterable[Beginning], limits: SamplerLimits, *, is_alone: bool) -> None:
        """`is_alone` has each beginning read by itself."""
        self._waiting = sorted(beginnings, key=_order)
        self._limits = limits
        self._is_alone = is_alone

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def first(self) -> Beginning | None:
        """Returns what is to be taken next, if anything waits."""
        return self._waiting[0] if self._waiting else None

    def add(self, beginning: Beginning) -> None:
        """Puts one more in its place."""
        insort(self._waiting, beginning, key=_order)

    def take(self, groups: int, rows: int, columns: int) -> list[Beginning]:
        """Takes the next that may be run in one pass without much padding.

        At most `groups` of them with `rows` completions, each of at most `columns` tokens.
        """
        chosen: list[Beginning] = []
        tokens = 0
        for one in self._waiting:
            if len(one.tokens) > columns:
                continue
            tokens += len(one.tokens)
            rows -= len(one.rows)
            is_over = self._is_over(len(chosen) + 1, max(len(each.tokens) for each in (*chosen, one)), tokens)
            if rows < 0 or len(chosen) == groups or (chosen and (self._is_alone or is_over)):
                break
            chosen.append(one)
        for one in chosen:
            self._waiting.remove(one)
        return chosen

    def _is_over(self, n: int, longest: int, tokens: int) -> bool:
        """Whether a pass of `n` prompts with so many `tokens` is too large, or too much of it padding."""
        padded = n * longest
        allowed_padding = max(self._limits.prefill_padding, padded // 4)
        return padded > self._limits.prefill_tokens or padded - tokens > allowed_padding


def _order(one: Beginning) -> tuple[int, int]:
    """Orders what waits: by turns, as whoever has most before it is to wait for replies while others sample;
    and long prompts first, so that those run together are of similar length.
    """
    return one.turn, -len(one.tokens)
