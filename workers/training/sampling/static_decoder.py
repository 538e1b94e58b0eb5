"""Decode steps over static tensors of few sizes, so that a GPU can replay each size as a CUDA graph.

Launching a small model's kernels one by one takes longer than running them; a graph is launched at once, but
reads and writes the same memory every time. So what is active is padded to the next size: spare rows write to
slots that are free and spare prompts are read by nobody, which changes no result.

Shapes as in `decode_step`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workers.training.base.transfer import overwrite
from workers.training.sampling.decode_attention import decode as decode_by_modules
from workers.training.sampling.decode_step import ActiveRows, Span, Step, places
from workers.training.sampling.graphed.graphs import Capture, Graphs, Run
from workers.training.sampling.slot_cache import SlotCache

DecodeStep = Callable[[SlotCache, Step], Tensor]
"""Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""


class GraphSize(NamedTuple):
    """Says what one graph is made for."""

    rows: int
    groups: int
    columns: int
    prompt_columns: int


class StaticDecoder:
    """Decodes the active rows of one cache. Each size is run eagerly first, then captured, then replayed."""

    def __init__(
        self,
        model: Any,
        cache: SlotCache,
        samples: int,
        capture: Capture | None = None,
        decode: DecodeStep | None = None,
    ) -> None:
        """Allocates the tensors that every step reads.

        Args:
            samples: most completions of one prompt.
            capture: makes a graph of a step that was run once; None runs every step eagerly.
            decode: computes a step; None does it by the model's own modules.
        """
        self._decode = decode or partial(decode_by_modules, model)
        self._cache = cache
        self._samples = samples
        device = cache.prompts[0].keys.device
        self._ids = torch.zeros(cache.slots, dtype=torch.long, device=device)
        # positions, columns and place of the rows, lengths of the prompts, source of the places
        self._counts = (cache.slots, cache.slots, cache.slots, cache.groups, cache.groups * samples)
        self._numbers = torch.zeros(sum(self._counts), dtype=torch.long, device=device)
        self._runs: dict[GraphSize, Run] = {}
        self._made_for = cache.columns
        self._graphs = Graphs(capture)
        self._captured: dict[GraphSize, Run] = {}

    def __call__(self, active: ActiveRows, ids: Tensor) -> Tensor:
        """Returns the logits of the next token of each active completion, given its last: (B,) -> (B, V).

        They are overwritten by the next call.
        """
        if self._made_for != self._cache.columns:  # the cache has moved to other memory
            self._runs.clear()
            self._captured.clear()
            self._made_for = self._cache.columns
        size = self._size(active)
        self._fill(active, ids, size)
        if size not in self._runs:
            self._runs[size] = self._eager(size, active)
        elif self._graphs.is_on and size not in self._captured:
            self._captured[size] = self._graphs.of(self._runs[size])
        return self._captured.get(size, self._runs[size])()[: len(ids)]

    def _size(self, active: ActiveRows) -> GraphSize:
        cache = self._cache
        return GraphSize(
            rows=min(_rounded(len(active.group), 1), cache.slots),
            groups=min(_rounded(len(active.prompt_lengths), 1), cache.groups),
            columns=min(_rounded(int(active.counts.max()), 32), cache.columns),
            prompt_columns=min(_rounded(int(active.prompt_lengths.max()), 32), cache.prompt_columns),
        )

    def _fill(self, active: ActiveRows, ids: Tensor, size: GraphSize) -> None:
        """Writes what this step reads where every step of its size reads it."""
        source, place = places(active.group, size.groups, self._samples)
        positions = active.prompt_lengths[active.group] + active.counts - 1
        values = (positions, active.counts - 1, place, active.prompt_lengths, source)
        # A spare row reads and writes column 0 of its slot; a spare prompt has one token.
        padded = [
            np.pad(array, (0, length - len(array)), constant_values=int(array is active.prompt_lengths))
            for array, length in zip(values, self._counts, strict=True)
        ]
        overwrite(self._numbers, np.concatenate(padded))
        self._ids[: len(ids)] = ids

    def _eager(self, size: GraphSize, active: ActiveRows) -> Run:
        positions, columns, place, lengths, source = torch.split(self._numbers, list(self._counts))
        step = Step(
            ids=self._ids[: size.rows],
            positions=positions[: size.rows],
            columns=columns[: size.rows],
            prompt_lengths=lengths[: size.groups],
            source=source[: size.groups * self._samples],
            place=place[: size.rows],
            completion_spans=(Span(0, size.rows, size.columns, is_full=False),),
            prompt_spans=(Span(0, size.groups, size.prompt_columns, is_full=False),),
            reach=int((active.prompt_lengths[active.group] + active.counts).max()),
        )
        return lambda: self._decode(self._cache, step)


def _rounded(n: int, least: int) -> int:
    """Returns the next power of two up to 32, then the next multiple of a quarter of the power below."""
    power = max(least, 1 << (n - 1).bit_length())
    step = max(power // 8, 1)
    return power if power <= 32 else -(-n // step) * step
