"""Attention over a packed stream: each prompt's keys and values serve all its completions.

The stream is cut into tiles: neighbouring tokens that look at the same earlier tiles. A prompt is one causal
tile. The completions behind it are put a few to a tile, or a long one is cut into several; such a tile looks
at its prompt, and by a mask at itself. Nothing is padded, and a prompt's keys are read once for each tile,
not once for each completion or query head. On a CPU in fp32 a compiled kernel does the same
(prefix_attention.py), if keys and values are of the same width, and on a GPU in 16 bits a library without
masks (varlen_attention.py), where that is seen to be right.

K key/value heads, R query heads for each, N tokens, D wide heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from workers.training.passes import varlen_attention
from workers.training.passes.prefix_attention import Layout, attend, make_layout
from workers.training.passes.varlen_trial import is_right

ROWS = {"cpu": 128, "cuda": 1024}
"""The most completion tokens in a tile. A CPU wants its scores in cache, a GPU wants few kernels. Chosen:
since the compiled kernel took over fp32 the CPU's has not been measured, and the GPU's has never been.
"""


class Segment(NamedTuple):
    """Is a prompt and its completions in the stream: where it starts, and how many tokens of each it has."""

    start: int
    prompt: int
    completions: tuple[int, ...]


class Tile(NamedTuple):
    """Is a run of consecutive tokens of the stream.

    Attributes:
        tokens: how many.
        sees: places of the earlier tiles that all of them may look at.
        runs: tokens of each sequence in the tile; causal within a run, blind to the other runs.
    """

    tokens: int
    sees: tuple[int, ...]
    runs: tuple[int, ...]


class PackedAttention:
    """Attends over the stream of `segments`.

    Plug it in with `attention.use` while that goes through the decoder.

    It is built on PyTorch's own attention, tile by tile, so it runs on any device and is differentiated by
    PyTorch.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self._segments = segments
        self._device = device
        self._masks: dict[torch.dtype, list[Tensor | None]] = {}

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        """Computes (1, K*R, N, D) queries, (1, K, N, D) keys and values -> (1, N, K*R, D)."""
        dtype = value.dtype  # of the model's arithmetic; autocast may leave the other two in fp32
        # The bf16 kernel of CPUs is slower than the fp32 one at these sizes.
        compute = torch.float32 if value.device.type == "cpu" and dtype.itemsize == 2 else dtype
        with torch.autocast(value.device.type, enabled=False):
            operands = query.to(compute), key.to(compute), value.to(compute)
            if value.device.type == "cpu" and compute == torch.float32 and key.shape == value.shape:
                return self._by_prefix(*operands, scaling).to(dtype)
            if value.device.type == "cuda" and compute.itemsize == 2 and _has_varlen(*operands):
                return self._by_sequence(*operands, scaling)
            return self._by_tile(*operands, scaling).to(dtype)

    def _by_prefix(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, key, value = (operand[0].transpose(0, 1) for operand in (query, key, value))
        return attend(query, key, value, self._layout, scaling)[None]

    def _by_sequence(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, key, value = (operand[0].transpose(0, 1) for operand in (query, key, value))
        return varlen_attention.attend(query, key, value, self._sequences, scaling)[None]

    def _by_tile(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        kv_heads, n, width = key.shape[1:]
        heads = query[0].view(kv_heads, -1, n, width)  # a key head is a row of the kernel's batch
        # `split`, not slices: its gradient is put together once, not in a full-size tensor for each tile.
        keys, values = torch.split(key[0], self._sizes, 1), torch.split(value[0], self._sizes, 1)
        found = []
        tiles = zip(self._tiles, torch.split(heads, self._sizes, 2), self._masks_in(query.dtype), strict=True)
        for i, (tile, queries, mask) in enumerate(tiles):
            seen = (*tile.sees, i)
            out = scaled_dot_product_attention(
                queries,
                _for_each_query_head([keys[j] for j in seen], queries.shape[1]),
                _for_each_query_head([values[j] for j in seen], queries.shape[1]),
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
            )
            found.append(out.permute(2, 0, 1, 3).flatten(1, 2))
        return torch.cat(found)[None]

    @cached_property
    def _layout(self) -> Layout:
        return make_layout(self._segments)

    @cached_property
    def _sequences(self) -> varlen_attention.Layout:
        return varlen_attention.make_layout(self._segments, self._device)

    @cached_property
    def _tiles(self) -> list[Tile]:
        return make_tiles(self._segments, ROWS.get(self._device.type, ROWS["cuda"]))

    @cached_property
    def _sizes(self) -> list[int]:
        return [tile.tokens for tile in self._tiles]

    def _masks_in(self, dtype: torch.dtype) -> list[Tensor | None]:
        """Returns what each tile adds to its scores; None where it is simply causal.

        Built once, for all layers.
        """
        if dtype not in self._masks:
            built: dict[tuple[int, tuple[int, ...]], Tensor] = {}
            self._masks[dtype] = []
            for tile in self._tiles:
                before = sum(self._sizes[i] for i in tile.sees)
                mask = None
                if tile.sees or len(tile.runs) > 1:
                    if (before, tile.runs) not in built:
                        built[before, tile.runs] = _mask(before, tile.runs, self._device, dtype)
                    mask = built[before, tile.runs]
                self._masks[dtype].append(mask)
        return self._masks[dtype]


def make_tiles(segments: Sequence[Segment], rows: int) -> list[Tile]:
    """Cuts the stream into tiles, from start to end; those of completions have at most `rows` tokens."""
    tiles: list[Tile] = []
    for segment in segments:
        if len(segment.completions) == 1:
            whole = segment.prompt + segment.completions[0]
            tiles.append(Tile(whole, (), (whole,)))
            continue
        prompt = len(tiles)
        tiles.append(Tile(segment.prompt, (), (segment.prompt,)))
        for runs in _runs(segment.completions, rows):
            if len(runs) > 1 or runs[0] <= rows:
                tiles.append(Tile(sum(runs), (prompt,), runs))
            else:
                first = len(tiles)
                cuts = [min(rows, runs[0] - at) for at in range(0, runs[0], rows)]
                tiles += [Tile(n, (prompt, *range(first, first + i)), (n,)) for i, n in enumerate(cuts)]
    return tiles


def _runs(completions: Sequence[int], rows: int) -> list[tuple[int, ...]]:
    """Returns neighbouring completions that fit in one tile; a longer one stands alone. Empty ones vanish."""
    found: list[list[int]] = []
    for tokens in filter(None, completions):
        if found and sum(found[-1]) + tokens <= rows:
            found[-1].append(tokens)
        else:
            found.append([tokens])
    return [tuple(runs) for runs in found]


def _mask(before: int, runs: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns (n, before + n): 0 where a token may look, -inf where not. Made on the device."""
    n = sum(runs)
    mask = torch.full((n, before + n), -torch.inf, dtype=dtype, device=device)
    mask[:, :before] = 0
    for end, tokens in zip(accumulate(runs), runs, strict=True):
        at = slice(end - tokens, end)
        mask[:, before:][at, at].triu_(1)
    return mask


def _has_varlen(query: Tensor, key: Tensor, value: Tensor) -> bool:
    shape = query.shape[1], key.shape[1], key.shape[-1], value.shape[-1]
    return is_right(*shape, query.dtype, query.device)


def _for_each_query_head(pieces: Sequence[Tensor], query_heads: int) -> Tensor:
    """Joins (K, n, D) pieces to (K, R, tokens, D), the same memory for each of the R heads."""
    joined = pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), 1)
    return joined[:, None].expand(-1, query_heads, -1, -1)
