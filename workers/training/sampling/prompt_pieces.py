"""Reading prompts piece by piece: what is new of each attends to what its slot holds already, and to itself.

n pieces, W tokens in the longest, states H wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from workers.training.model import attention
from workers.training.model.parts import decoder_of
from workers.training.sampling.slot_cache import SlotCache

if TYPE_CHECKING:
    from workers.training.sampling.panel_cache import PanelCache


class Piece(NamedTuple):
    """Is some tokens of the prompt in a slot, whose first `first` tokens the slot holds."""

    slot: int
    first: int
    ids: Sequence[int]


def read_pieces(model: Any, cache: SlotCache | PanelCache, pieces: Sequence[Piece]) -> Tensor:
    """Reads pieces of different prompts and keeps their keys and values; returns states, (n, W, H).

    Behind a piece's own tokens its states mean nothing.
    """
    device = model.device
    widths = [len(piece.ids) for piece in pieces]
    ids = torch.zeros(len(pieces), max(widths), dtype=torch.long)
    for row, piece in enumerate(pieces):
        ids[row, : widths[row]] = torch.tensor(piece.ids)
    first = torch.tensor([piece.first for piece in pieces])
    positions = first[:, None] + torch.arange(ids.shape[1])
    reach = max(piece.first + width for piece, width in zip(pieces, widths, strict=True))
    # What a piece does not have lies at its last position: a model has no more than its context.
    last = first + torch.tensor(widths) - 1
    positions = torch.minimum(positions, last[:, None]).to(device)
    attend = _AttendAll(cache, pieces, device) if not first.any() else _AttendBehind(cache, pieces, device)
    with attention.use(attend, reach):
        states: Tensor = decoder_of(model)(
            input_ids=ids.to(device), position_ids=positions, use_cache=False
        ).last_hidden_state
    return states


class _AttendAll:
    """Is the attention of pieces that begin their prompts."""

    def __init__(self, cache: SlotCache | PanelCache, pieces: Sequence[Piece], device: torch.device) -> None:
        self._cache = cache
        self._slots = torch.tensor([piece.slot for piece in pieces], device=device)

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        self._cache.keep_prompts_in(module.layer_idx, self._slots, key, value)
        found = scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=query.shape[2] > 1,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return found.transpose(1, 2)


class _AttendBehind:
    """Is the attention of pieces some of which come after others."""

    def __init__(self, cache: SlotCache | PanelCache, pieces: Sequence[Piece], device: torch.device) -> None:
        self._cache = cache
        self._pieces = pieces
        width = max(len(piece.ids) for piece in pieces)
        self._reach = max(piece.first + len(piece.ids) for piece in pieces)
        first = torch.tensor([piece.first for piece in pieces], device=device)
        own = first[:, None] + torch.arange(width, device=device)
        self._seen = (torch.arange(self._reach, device=device) <= own[:, :, None])[:, None]

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        cache, layer = self._cache, module.layer_idx
        stored = []
        for row, (slot, first, ids) in enumerate(self._pieces):
            n = len(ids)
            cache.keep_piece(layer, slot, first, key[row, :, :n], value[row, :, :n])
            more = (0, 0, 0, self._reach - first - n)
            stored.append([pad(kept, more) for kept in cache.read_prompt(layer, slot, first + n)])
        keys, values = (torch.stack(each) for each in zip(*stored, strict=True))
        found = scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=self._seen,
            scale=scaling,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return found.transpose(1, 2)
