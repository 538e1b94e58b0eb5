"""The sampler's attention on a CPU in fp32: one softmax over prompt and own tokens, in few tensor operations.

A few rows' attention is little arithmetic; what costs is the number of operations. The scores of a group's
completions with their prompt are one matrix product and those of all rows with their own tokens another. They
lie side by side under one softmax, so no log-sum-exp has to put two together. Every row reads as many columns
as the longest, so this is for rows of about the same length; for others there is `DecodeAttention`.

Shapes as in `decode_attention`. Rows come in two orders: by slot, (B * kv_heads), and by prompt,
(n * kv_heads * M).
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.training.decode_attention import write, write_places
from workers.training.decode_step import Step
from workers.training.slot_cache import SlotCache


class JointAttention:
    """Takes the place of `DecodeAttention` for one decode step."""

    def __init__(self, cache: SlotCache, step: Step) -> None:
        self._cache = cache
        self._write_at = write_places(cache, step)
        self._prompt, self._own = step.prompt_spans[0].width, step.completion_spans[0].width
        self._n, self._kv_heads = len(step.prompt_lengths), cache.prompts[0].keys.shape[1]
        assert step.order is not None
        self._by_prompt, self._by_slot = step.order.of_heads(self._kv_heads)
        self._bias = _bias(step)

    @staticmethod
    def suits(cache: SlotCache, step: Step) -> bool:
        """Whether all prompts, and all completions, are read to about the same length."""
        return (
            step.order is not None
            and len(step.prompt_spans) == len(step.completion_spans) == 1
            and cache.prompts[0].keys.dtype == torch.float32
            and len({layer.keys.shape[1] for layer in cache.prompts}) == 1
        )

    def read_and_write(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Keep one token's keys and values for each slot and attend to all it has.

        (B, heads, D), (B, kv_heads, D), (B, kv_heads, E) -> (B, heads, E).
        """
        own, prompts = self._cache.completions[layer], self._cache.prompts[layer]
        write(own, self._write_at, key, value)
        B, heads, D = query.shape
        kv_heads, by_prompt, by_slot = self._kv_heads, self._by_prompt, self._by_slot
        S, P, folded = B * kv_heads, self._n * kv_heads, heads // kv_heads
        asked = (query * scaling).view(S, -1, D)
        together = asked.index_select(0, by_prompt).view(P, -1, D)
        of_prompt = torch.bmm(together, _heads(prompts.keys, P, self._prompt).transpose(1, 2))
        of_own = torch.bmm(asked, _heads(own.keys, S, self._own).transpose(1, 2))
        of_own = of_own.index_select(0, by_prompt).view(P, -1, self._own)
        scores = torch.cat((of_prompt, of_own), -1)
        if self._bias is not None:
            scores.view(self._n, kv_heads, -1, folded, scores.shape[-1]).add_(self._bias)
        weights = torch.softmax(scores, -1)
        found = torch.bmm(weights[..., : self._prompt], _heads(prompts.values, P, self._prompt))
        found = found.view(-1, folded, found.shape[-1]).index_select(0, by_slot)
        mine = weights.view(-1, folded, weights.shape[-1])[..., self._prompt :]
        mine = mine.index_select(0, by_slot)
        return torch.baddbmm(found, mine, _heads(own.values, S, self._own)).view(B, heads, -1)


def _heads(stored: Tensor, rows: int, columns: int) -> Tensor:
    """The first (slots * kv_heads, columns, width) of what is kept, without a copy."""
    return stored.flatten(0, 1)[:rows, :columns]


def _bias(step: Step) -> Tensor | None:
    """What is added to the scores, (n, 1, M, 1, columns): -inf where nothing is kept; None if nowhere."""
    prompt, own = step.prompt_spans[0], step.completion_spans[0]
    if prompt.is_full and own.is_full:
        return None
    n = len(step.prompt_lengths)
    counts = step.columns + 1
    if step.source is not None:
        counts = counts.index_select(0, step.source)
    M = len(counts) // n
    of_prompt = torch.arange(prompt.width) >= step.prompt_lengths[:, None]
    of_own = torch.arange(own.width) >= counts[:, None]
    hidden = torch.cat((of_prompt[:, None].expand(n, M, -1), of_own.view(n, M, -1)), -1)
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, :, None]
