"""A decode step by the model's own modules over panels: for what the compiled step does not compute.

Shapes as in `decode_step`; heads = kv_heads * folded, each D wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from workers.training.kernels.attend import Rows, attend, make_scratch
from workers.training.kernels.panels import PANEL
from workers.training.model import attention
from workers.training.model.head import output_head
from workers.training.model.parts import decoder_of
from workers.training.sampling.decode_step import ActiveRows
from workers.training.sampling.panel_cache import PanelCache


def decode_by_modules(model: Any, cache: PanelCache, active: ActiveRows, ids: Tensor) -> Tensor:
    """Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""
    positions = active.prompt_lengths[active.group] + active.counts - 1
    with attention.use(PanelAttention(cache, active), int(positions.max()) + 1):
        states = decoder_of(model)(
            input_ids=ids[:, None], position_ids=torch.from_numpy(positions)[:, None], use_cache=False
        ).last_hidden_state
    logits: Tensor = output_head(model)(states[:, -1])
    return logits


class PanelAttention:
    """Is the attention function of one decode step (`attention.use`)."""

    def __init__(self, cache: PanelCache, active: ActiveRows) -> None:
        self._cache = cache
        self._arrays = cache.arrays()
        own = np.arange(len(active.group))
        self._rows = Rows(active.slots_by_group, active.group, active.counts, active.prompt_lengths, own)
        self._order = torch.from_numpy(active.slots_by_group)
        self._slots = torch.arange(len(active.group))
        self._columns = torch.from_numpy(active.counts - 1)

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """Computes (B, heads, 1, D) queries, (B, kv_heads, 1, D) keys and values -> (B, 1, heads, D)."""
        B, heads, _, D = query.shape
        kv_heads, layer = key.shape[1], module.layer_idx
        self._keep(layer, key[:, :, 0], value[:, :, 0])
        scaled = query[:, :, 0] * (D**-0.5 if scaling is None else scaling)
        asked = scaled[self._order].view(B, kv_heads, -1, D).transpose(0, 1).contiguous()
        width = self._cache.completions.values.shape[3] * PANEL
        out = torch.empty(B, heads * width)
        scratch = make_scratch(self._rows, heads // kv_heads, width)
        attend(layer, self._rows, asked.numpy(), *self._arrays, scratch, out.numpy())
        found = torch.empty(B, 1, heads, D)
        found[self._order, 0] = out.view(B, heads, width)[..., :D]
        return found

    def _keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        keys, values = self._cache.completions
        keys[layer, self._slots, :, self._columns // PANEL, :, self._columns % PANEL] = key
        value = pad(value, (0, -value.shape[2] % PANEL)).unflatten(2, (-1, PANEL))  # type: ignore[no-untyped-call]
        values[layer, self._slots, :, :, self._columns] = value
