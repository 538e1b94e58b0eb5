"""A base in memory: its batches, and the adapters of tuned models that share it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from workers.serving.batch import Batch
from workers.serving.counts import Counts
from workers.serving.fast_path import FastPath
from workers.serving.general_path import GeneralPath
from workers.serving.requests import ModelFiles
from workers.training.model.adapter_rows import Adapter, AdapterRows
from workers.training.model.base_model import BaseModel
from workers.training.passes.path import shortest_window
from workers.training.rendering.stop_strings import StopStrings
from workers.training.sampling.decoders import is_fast
from workers.training.sampling.graphed.shapes import BYTES_WITHOUT_GPU, SERVING_SHARE, budget_of

MEMORY_SHARE = 4
"""The part of the memory that keys and values of a base may take on a CPU. Chosen, not measured."""
CONTAINER = Path("/sys/fs/cgroup/memory.max")
MOST_STOPS = 64
"""Sets of stop strings that a base knows. Chosen, not measured."""


class Limits(NamedTuple):
    """Bounds what a base holds in memory beside its weights.

    Attributes:
        adapters: of tuned models.
        rows: completions decoded side by side.
        cache_bytes: keys and values; 0 for a share of the machine's memory, or what a GPU has for it.
    """

    adapters: int = 16
    rows: int = 64
    cache_bytes: int = 0


def _default_bytes(device: torch.device) -> int:
    """Returns the memory for keys and values where none is said. What no request needs is not taken."""
    if device.type != "cpu":
        return budget_of(device, SERVING_SHARE)
    return max(BYTES_WITHOUT_GPU, _memory() // MEMORY_SHARE)


def _memory() -> int:
    """Returns the memory that this process may have: the machine's, or its container's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(CONTAINER.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine


class LoadedBase:
    """Holds one base. All but its making is the engine thread's."""

    def __init__(self, base: BaseModel, limits: Limits, counts: Counts) -> None:
        """Makes what most requests need; it takes as long as copying the weights."""
        self.base = base
        self.model = base.model
        self.end_ids = frozenset(base.end_ids)
        self.context = base.context
        self.vocabulary = base.vocabulary
        self._limits = limits
        self._counts = counts
        self._bytes = limits.cache_bytes or _default_bytes(base.device)
        self._rows = AdapterRows(base.model)
        self._numbers: OrderedDict[ModelFiles, int] = OrderedDict()
        self._users: dict[ModelFiles, int] = {}
        self.held_back: ModelFiles | None = None
        """A tuned model of which nothing new may begin: its adapter is to make room for another."""
        self._is_room_wanted = False
        self._stops: OrderedDict[tuple[str, ...], StopStrings] = OrderedDict()
        self._texts_of_tokens: dict[int, str] = {}
        self._batches: dict[bool, Batch] = {}
        self.is_fast = is_fast(base.model, 0)
        self._window = (shortest_window(base.model) or self.context) if self.is_fast else 0
        self.batch_for(1)

    @property
    def batches(self) -> list[Batch]:
        """Returns what there is to step."""
        return list(self._batches.values())

    @property
    def is_full(self) -> bool:
        """Says whether no batch has room for another row, and none is to be made."""
        return bool(self._batches) and all(batch.is_full for batch in self._batches.values())

    @property
    def adapters(self) -> list[ModelFiles]:
        """Returns the tuned models whose adapters are in memory, the one used last at the end."""
        return list(self._numbers)

    def batch_for(self, tokens: int) -> Batch:
        """Returns the batch that takes sequences of so many tokens, made if need be."""
        on_fast_path = tokens <= self._window
        if on_fast_path not in self._batches:
            self._batches[on_fast_path] = self._make(on_fast_path)
        return self._batches[on_fast_path]

    @torch.inference_mode()
    def _make(self, on_fast_path: bool) -> Batch:
        rows, path = self._limits.rows, None
        if on_fast_path:
            context = min(self._window, self.context)
            path = FastPath(self.model, rows, context, self._bytes, self._rows)
        return Batch(self, path or GeneralPath(self.model, rows, self._bytes), self._counts)

    def forget(self, batch: Batch) -> None:
        """Lets go of a batch that has failed; another takes its place once it is needed."""
        self._batches = {way: each for way, each in self._batches.items() if each is not batch}

    def stop_strings(self, stops: Sequence[str]) -> StopStrings | None:
        """Returns what knows when a completion has reached one of these; None without any."""
        key = tuple(stops)
        if not key:
            return None
        if key not in self._stops:
            self._stops[key] = StopStrings(self.base.tokenizer, key, self._texts_of_tokens)
            if len(self._stops) > MOST_STOPS:
                self._stops.popitem(last=False)
        self._stops.move_to_end(key)
        return self._stops[key]

    def number_of(self, files: ModelFiles) -> int | None:
        """Returns the number of a tuned model's adapter; None if it is not in memory."""
        if files in self._numbers:
            self._numbers.move_to_end(files)
        return self._numbers.get(files)

    def can_put(self) -> bool:
        """Says whether there is room for another adapter; the one not used for longest makes room."""
        if len(self._numbers) < self._limits.adapters:
            return True
        idle = next((files for files in self._numbers if not self._users.get(files)), None)
        if idle is None:
            self.held_back = self.held_back or next(iter(self._numbers))
            self._is_room_wanted = True
            return False
        self._rows.drop(self._numbers.pop(idle))
        self.held_back = None
        return True

    def settle(self) -> None:
        """Holds nothing back any longer if nobody has asked for room since the last call."""
        if not self._is_room_wanted:
            self.held_back = None
        self._is_room_wanted = False

    def put(self, files: ModelFiles, adapter: Adapter) -> None:
        """Takes an adapter in, for which there is room."""
        number = min(set(range(self._limits.adapters)) - set(self._numbers.values()))
        self._rows.put(number, adapter)
        self._numbers[files] = number

    def hold(self, files: ModelFiles) -> None:
        """Takes note that a request uses a model: its adapter stays."""
        self._users[files] = self._users.get(files, 0) + 1

    def release(self, files: ModelFiles) -> None:
        """Takes note that a request no longer uses it."""
        self._users[files] -= 1
        if not self._users[files]:
            del self._users[files]
