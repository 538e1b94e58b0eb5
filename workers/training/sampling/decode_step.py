"""What one decode step reads and where it writes, worked out on the host.

Shapes: B active completions in slots 0..B of the cache, n prompts in slots 0..n, M places for completions of
one group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

COMPLETION_SPAN_COST, PROMPT_SPAN_COST = 2048, 256
"""Columns that could be read in the time that one more span takes; a prompt's are read by a whole group.
Measured with heads of cherry-nano: a call takes 21 to 30 us, a column 0.04 to 0.06 us for a completion and
0.16 to 0.19 for a prompt of 8, that is 500 to 750 and 130 to 220 columns. For completions, whose spans are
cut anew at each step, more was chosen (docs/benchmarks.md).
"""


class Span(NamedTuple):
    """Is the slots first..last, of which the first `width` columns are read."""

    first: int
    last: int
    width: int
    is_full: bool
    """Nothing among these columns is hidden."""


@dataclass(frozen=True)
class GroupedPlaces:
    """Puts completions beside others of their group.

    Attributes:
        source: (n * M,) the completion in each place of each group, any for an empty place.
        place: (B,) where each completion is found in `source`.
    """

    source: Ints
    place: Ints

    @cached_property
    def is_plain(self) -> bool:
        """Says whether both are 0, 1, ... B."""
        return len(self.source) == len(self.place) and bool((np.diff(self.place) == 1).all())


@dataclass(frozen=True)
class ActiveRows:
    """Holds the completions still being sampled, by slot, on the host. `counts` may grow, the others stay.

    Attributes:
        group: (B,) the slot of each one's prompt.
        counts: (B,) tokens sampled.
        prompt_lengths: (n,) by slot.
    """

    group: Ints
    counts: Ints
    prompt_lengths: Ints

    @cached_property
    def grouped(self) -> GroupedPlaces:
        """Returns the completions beside others of their group."""
        return GroupedPlaces(*places(self.group, len(self.prompt_lengths)))

    @cached_property
    def slots_by_group(self) -> Ints:
        """Returns the slots of completions, (B,), those of one group beside each other."""
        return np.argsort(self.group, kind="stable")

    @cached_property
    def prompt_spans(self) -> tuple[Span, ...]:
        """Returns how prompts are read."""
        return spans(self.prompt_lengths, PROMPT_SPAN_COST)


@dataclass(frozen=True)
class Step:
    """Is one decode step. The tensors change from step to step; the rest is shape.

    Attributes:
        ids: (B,) the last token of each active completion.
        positions: (B,) its position in the sequence.
        columns: (B,) its place in the completion.
        prompt_lengths: (n,).
        source: (n * M,) the completion in each place of each group, any for an empty place; None where that
            is 0, 1, ... B.
        place: (B,) where each completion is found in `source`; None likewise.
        completion_spans, prompt_spans: cut all B and all n slots by how far they are filled.
        reach: tokens of the longest sequence.
    """

    ids: Tensor
    positions: Tensor
    columns: Tensor
    prompt_lengths: Tensor
    source: Tensor | None
    place: Tensor | None
    completion_spans: tuple[Span, ...]
    prompt_spans: tuple[Span, ...]
    reach: int


def exact_step(active: ActiveRows, ids: Tensor) -> Step:
    """Returns a step over what is active and nothing else, given the last tokens, (B,)."""
    grouped = active.grouped
    positions = active.prompt_lengths[active.group] + active.counts - 1

    def there(values: Ints) -> Tensor:
        return torch.from_numpy(values).to(ids.device)

    return Step(
        ids=ids,
        positions=there(positions),
        columns=there(active.counts - 1),
        prompt_lengths=there(active.prompt_lengths),
        source=None if grouped.is_plain else there(grouped.source),
        place=None if grouped.is_plain else there(grouped.place),
        completion_spans=spans(active.counts, COMPLETION_SPAN_COST),
        prompt_spans=active.prompt_spans,
        reach=int(positions.max()) + 1,
    )


def places(group: Ints, n: int, width: int = 0) -> tuple[Ints, Ints]:
    """Puts completions beside others of their group, in `width` places or as few as do.

    Args:
        group: (B,) the slot of each one's prompt, of n.
        width: M, places for completions of one group.

    Returns:
        source, (n * M,), and place, (B,), as `GroupedPlaces` has them.
    """
    sizes = np.bincount(group, minlength=n)
    width = width or int(sizes.max())
    by_group = np.argsort(group, kind="stable")
    rank = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty_like(group)
    place[by_group] = group[by_group] * width + rank
    source = np.zeros(n * width, dtype=np.int64)
    source[place] = np.arange(len(group))
    return source, place


def spans(lengths: Ints, cost: int) -> tuple[Span, ...]:
    """Cuts slots so that few columns beyond their (n,) lengths are read; a span counts as `cost` columns."""
    found: list[Span] = []
    first, n = 0, len(lengths)
    while first < n:
        rest = lengths[first:]
        longest, cut = int(rest.max()), len(rest)
        if int(rest.min()) * 2 <= longest:
            left = np.maximum.accumulate(rest)[:-1]
            right = np.maximum.accumulate(rest[::-1])[::-1][1:]
            read = np.arange(1, len(rest)) * left + np.arange(len(rest) - 1, 0, -1) * right
            best = int(read.argmin())
            if read[best] + cost < len(rest) * longest:
                cut, longest = best + 1, int(left[best])
        found.append(Span(first, first + cut, longest, bool((rest[:cut] == longest).all())))
        first += cut
    return tuple(found)
