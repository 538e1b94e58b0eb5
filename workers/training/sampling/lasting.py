"""Decoders over caches that live as long as their model, for sequences that come and go at any step.

Rows (completions under way) are in slots 0, 1, ... as they come; a prompt is in any slot. On a CPU what a
slot does not hold takes no memory (lazy_memory.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workers.training.model.adapter_rows import AdapterRows
from workers.training.model.head import output_head
from workers.training.sampling.decode_attention import decode, layer_shapes
from workers.training.sampling.decode_step import ActiveRows, Ints, exact_step
from workers.training.sampling.decoders import can_be_compiled, step_function
from workers.training.sampling.draw import draw_each
from workers.training.sampling.graphed.graphs import CudaGraph
from workers.training.sampling.lazy_memory import LazyMemory
from workers.training.sampling.lean_decoder import LeanDecoder, can_be_lean
from workers.training.sampling.prompt_pieces import Piece, read_pieces
from workers.training.sampling.slot_cache import SlotCache
from workers.training.sampling.static_decoder import StaticDecoder

if TYPE_CHECKING:
    from workers.training.kernels.decode_ahead import Draws
    from workers.training.sampling.compiled_decoder import CompiledDecoder
    from workers.training.sampling.panel_cache import PanelCache

GRAPHED = frozenset(("cuda",))
"""Devices that decode over static tensors, where each row has a prompt of its own."""
SLOTS_PER_ROW = 3
"""Slots of the whole context: one for the completion, one for its prompt, and one for a prompt of which more
samples wait. It follows from that.
"""
READ_BY_KERNELS = 64
"""Tokens up to which a prompt is read by the kernels, in one thread, where torch has more. Measured: in one
thread they take a half to a quarter of torch's time, whatever the length (docs/benchmarks.md).
"""
GIVEN_BACK_FROM = 1 << 20
"""Bytes from which what a slot holds is given back to the system as soon as the slot is free. Chosen: slots
that hold less are 128 MB in all at most.
"""


class Kept(NamedTuple):
    """Holds keys and values of a sequence's first tokens: per layer, (heads, tokens, width) each."""

    layers: Sequence[tuple[Tensor, Tensor]]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Counts the memory held."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class LastingDecoder:
    """Decodes up to `rows` completions of up to `context` tokens, prompt and completion together."""

    def __init__(self, model: Any, rows: int, context: int, adapters: AdapterRows, n_bytes: int) -> None:
        """Reserves the memory, and copies the weights where that pays.

        Args:
            n_bytes: most that keys and values may take; a GPU, where memory that is reserved is held, has no
                more rows than that.
        """
        self._model = model
        self._adapters = adapters
        self._head = output_head(model)
        self._shapes, self._like = layer_shapes(model, model.device)
        self._memory = LazyMemory() if model.device.type == "cpu" else None
        self.bytes_per_token = bytes_per_token(model)
        if self._memory is None:
            rows = max(1, min(rows, n_bytes // (SLOTS_PER_ROW * context * self.bytes_per_token)))
        self.has_a_row_per_prompt = model.device.type in GRAPHED
        """Rows of one prompt need a copy of it each."""
        self._adapters_seen, self._compiles_adapters = -1, False
        self._compiled_decoder: CompiledDecoder | None = None
        self.cache: SlotCache | PanelCache
        self.cache, self._plain, self._adapted = self._that_fit(rows, context)
        self.rows = self.cache.slots

    def _that_fit(self, rows: int, context: int) -> tuple[SlotCache | PanelCache, _Decode, _Decode]:
        """Returns what `_decoders` does, for fewer rows where the system will not even reserve so much."""
        try:
            return self._decoders(rows, context)
        except OSError:
            if rows == 1:
                raise
            return self._that_fit(rows // 2, context)

    def _decoders(self, rows: int, context: int) -> tuple[SlotCache | PanelCache, _Decode, _Decode]:
        """Returns a cache, what decodes over it, and what does with adapters."""
        model = self._model
        self.prompt_slots = (SLOTS_PER_ROW - 1) * rows
        if can_be_compiled(model) and not self.has_a_row_per_prompt:
            return self._compiled(rows, context)
        cache = SlotCache(
            self._shapes,
            self._like,
            groups=self.prompt_slots,
            prompt_columns=context,
            slots=rows,
            columns=context,
            allocate=self._allocate if self._memory is not None else None,
        )

        def by_modules(active: ActiveRows, ids: Tensor, _: Ints | None) -> Tensor:
            return decode(model, cache, exact_step(active, ids))

        if self.has_a_row_per_prompt:
            capture = CudaGraph if model.device.type == "cuda" else None
            static = StaticDecoder(model, cache, 1, capture, step_function(model).decode)
            return cache, lambda active, ids, _: static(active, ids), by_modules
        if can_be_lean(model):
            lean = LeanDecoder(model)
            return cache, lambda active, ids, _: lean.decode(cache, exact_step(active, ids)), by_modules
        return cache, by_modules, by_modules

    def _compiled(self, rows: int, context: int) -> tuple[PanelCache, _Decode, _Decode]:
        from workers.training.sampling.compiled_decoder import CompiledDecoder
        from workers.training.sampling.panel_attention import decode_by_modules
        from workers.training.sampling.panel_cache import PanelCache

        cache = PanelCache(
            self._shapes,
            groups=self.prompt_slots,
            prompt_columns=context,
            slots=rows,
            columns=context,
            allocate=self._allocate,
        )
        compiled = self._compiled_decoder = CompiledDecoder(self._model, cache, context)

        def by_kernels_or_modules(active: ActiveRows, ids: Tensor, adapters: Ints | None) -> Tensor:
            if self._compiles(adapters):
                return compiled(active, ids, adapters)
            return decode_by_modules(self._model, cache, active, ids)

        return cache, lambda active, ids, _: compiled(active, ids), by_kernels_or_modules

    def _compiles(self, adapters: Ints | None) -> bool:
        """Says whether kernels decode rows with these adapters: not where one is of a layer that they do not
        adapt.
        """
        if self._compiled_decoder is None:
            return False
        if adapters is None:
            return True
        if self._adapters_seen != self._adapters.changes:
            self._adapters_seen = self._adapters.changes
            try:
                self._compiled_decoder.set_adapters(self._adapters.by_number)
                self._compiles_adapters = True
            except ValueError:
                self._compiles_adapters = False
        return self._compiles_adapters

    def _allocate(self, shape: tuple[int, ...]) -> Tensor:
        assert self._memory is not None
        return self._memory.zeros(shape, self._like.dtype)

    def warm(self) -> None:
        """Decodes one token, so that kernels are compiled before anybody waits for them."""
        ones, ids = np.ones(1, np.int64), torch.zeros(1, dtype=torch.long, device=self._like.device)
        self.read([Piece(0, 0, [0])], None)
        logits = self.decode(ActiveRows(ones - 1, ones, ones), ids, None)
        draw_each(logits, torch.zeros(1, device=ids.device), np.ones(1, np.float32), np.ones(1, np.float32))

    def read(self, pieces: Sequence[Piece], adapters: Ints | None) -> Tensor:
        """Reads pieces of prompts, each with the adapter of its number or none (-1): states, (n, W, H)."""
        tokens = sum(len(piece.ids) for piece in pieces)
        pays = torch.get_num_threads() == 1 or tokens <= READ_BY_KERNELS
        if self._compiled_decoder is not None and pays and self._compiles(adapters):
            return self._compiled_decoder.read(pieces, adapters)
        with self._adapters.use(adapters):
            return read_pieces(self._model, self.cache, pieces)

    def logits(self, states: Tensor) -> Tensor:
        """Computes (..., H) -> (..., V)."""
        found: Tensor = self._head(states)
        return found

    def decode(self, active: ActiveRows, ids: Tensor, adapters: Ints | None) -> Tensor:
        """Returns the logits of the next token of each row, given its last: (B,) -> (B, V).

        They are overwritten by the next call. `adapters` (B,) as in `read`.
        """
        if adapters is None:
            return self._plain(active, ids, None)
        with self._adapters.use(adapters):
            return self._adapted(active, ids, adapters)

    def can_run_ahead(self, n: int, adapters: Ints | None) -> bool:
        """Says whether `ahead` serves n rows, whose adapters are (n,)."""
        compiled = self._compiled_decoder
        return compiled is not None and compiled.is_serial(n) and self._compiles(adapters)

    def ahead(self, active: ActiveRows, ids: Tensor, adapters: Ints | None, draws: Draws) -> int:
        """Decodes and draws several tokens of each row; (B,) `ids` and `active.counts` follow.

        Returns how many each was given: fewer than there are draws for if one ends its completion before.
        """
        assert self._compiled_decoder is not None
        return self._compiled_decoder.ahead(active, ids, adapters, draws)

    def move_row(self, source: int, target: int, width: int) -> None:
        """Moves a completion of `width` tokens to another slot."""
        self.cache.move_completions(self._index(source), self._index(target), width)

    def copy_prompt(self, source: int, target: int, width: int) -> None:
        """Copies a prompt of `width` tokens to another slot."""
        self.cache.move_prompts(self._index(source), self._index(target), width)

    def keep(self, prompt: int, n_prompt: int, row: int = 0, n_row: int = 0) -> Kept:
        """Returns a copy of what is kept of a prompt's tokens and of those of a completion of it."""
        return Kept(self.cache.copy_of(prompt, n_prompt, row, n_row), n_prompt + n_row)

    def restore(self, prompt: int, kept: Kept, n: int) -> None:
        """Puts the first `n` of a sequence's tokens into a prompt's slot."""
        for layer, (keys, values) in enumerate(kept.layers):
            self.cache.keep_piece(layer, prompt, 0, keys[:, :n], values[:, :n])

    def free_row(self, row: int, width: int) -> None:
        """Gives back the memory of a completion that had `width` tokens, if it is worth it."""
        self._give_back(row, width, is_prompt=False)

    def free_prompt(self, slot: int, width: int) -> None:
        """Gives back the memory of a prompt that had `width` tokens, if it is worth it."""
        self._give_back(slot, width, is_prompt=True)

    def _give_back(self, slot: int, width: int, *, is_prompt: bool) -> None:
        if self._memory is None or width * self.bytes_per_token < GIVEN_BACK_FROM:
            return
        for part in self.cache.parts_of(slot, is_prompt=is_prompt):
            self._memory.give_back(part)

    def _index(self, slot: int) -> Tensor:
        return torch.tensor([slot], device=self._like.device)


_Decode = Callable[[ActiveRows, Tensor, "Ints | None"], Tensor]


def bytes_per_token(model: Any) -> int:
    """Returns what a model on the fast path keeps of a token."""
    shapes, like = layer_shapes(model, model.device)
    return sum(layer.numbers for layer in shapes) * like.element_size()
