"""Attention over tiles on a CPU, as one node of the autograd graph.

A tile whose scores fit in a core's cache is computed by plain products, which keep its probabilities for the
backward pass: twice as fast as the library's kernel, which is made for long sequences and computes the scores
again. The kernel computes the larger tiles, and those for which there is no room to keep probabilities.

K key/value heads, R query heads for each, N tokens of the stream; a tile has T tokens that look at S. D wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

CACHED_SCORES = 1 << 17
"""Most scores of one key head (R * T * S) that are computed by plain products: half a MiB in fp32."""

KEPT_BYTES = 32 * 2**20
"""Most memory for the probabilities that one call keeps until its backward pass."""


@dataclass(frozen=True)
class Place:
    """A tile in the stream.

    Attributes:
        tokens: its own.
        sees: ranges that its tokens may look at, its own last.
        mask: (T, S) added to the scores; None where the tile is simply causal.
    """

    tokens: slice
    sees: tuple[slice, ...]
    mask: Tensor | None

    @property
    def n_scores(self) -> int:
        """Of one query head: T * S."""
        return (self.tokens.stop - self.tokens.start) * sum(seen.stop - seen.start for seen in self.sees)


class _Parts(NamedTuple):
    """What a tile reads: (K, R, T, D), (K, S, D), (K, S, D)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def heads_alike(self) -> tuple[Tensor, Tensor, Tensor]:
        """(K, R, ., D) each: keys and values are the same memory for each of the R heads."""
        R = self.query.shape[1]
        return self.query, _repeated(self.key, R), _repeated(self.value, R)


def tile_attention(
    query: Tensor, key: Tensor, value: Tensor, places: Sequence[Place], scaling: float
) -> Tensor:
    """(K*R, N, D) queries, (K, N, D) keys and values -> (N, K*R, D)."""
    found: Tensor = _TileAttention.apply(query, key, value, places, scaling)  # type: ignore[no-untyped-call]
    return found


class _TileAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, places: Sequence[Place], scaling: float
    ) -> Tensor:
        K, N, D = key.shape
        out = query.new_empty(N, K, len(query) // K, D)
        is_differentiated = any(ctx.needs_input_grad)
        kept: list[Tensor] = []
        for place, parts, is_plain in _tiles(query, key, value, places):
            if is_plain:
                states, probs = _plain(parts, place.mask, scaling)
                kept.append(probs)
            else:
                states, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    *parts.heads_alike(), is_causal=place.mask is None, attn_mask=place.mask, scale=scaling
                )
                kept += [states, logsumexp]
            out[place.tokens] = states.permute(2, 0, 1, 3)
            if not is_differentiated:
                kept.clear()
        ctx.save_for_backward(query, key, value, *kept)
        ctx.places, ctx.scaling = places, scaling
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, *kept = ctx.saved_tensors
        K, N, D = key.shape
        grad = grad.view(N, K, -1, D)
        # Laid out token by token, as the products that made the three were.
        of_query = torch.empty_like(grad)
        of_key, of_value = query.new_zeros(N, K, D), query.new_zeros(N, K, D)
        left = iter(kept)
        for place, parts, is_plain in _tiles(query, key, value, ctx.places):
            given = grad[place.tokens].permute(1, 2, 0, 3)
            if is_plain:
                of_parts = _plain_backward(given, parts, next(left), ctx.scaling)
            else:
                of_parts = _kernel_backward(given, parts, next(left), next(left), place.mask, ctx.scaling)
            of_query[place.tokens] = of_parts.query.permute(2, 0, 1, 3)
            at = 0
            for seen in place.sees:
                n = seen.stop - seen.start
                of_key[seen] += of_parts.key[:, at : at + n].transpose(0, 1)
                of_value[seen] += of_parts.value[:, at : at + n].transpose(0, 1)
                at += n
        return (
            of_query.flatten(1, 2).transpose(0, 1),
            of_key.transpose(0, 1),
            of_value.transpose(0, 1),
            None,
            None,
        )


def _tiles(
    query: Tensor, key: Tensor, value: Tensor, places: Sequence[Place]
) -> Iterator[tuple[Place, _Parts, bool]]:
    """Each tile with what it reads, and whether plain products compute it."""
    K, N, D = key.shape
    heads = query.view(K, -1, N, D)
    R = heads.shape[1]
    room = KEPT_BYTES
    for place in places:
        n_bytes = K * R * place.n_scores * query.element_size()
        is_plain = R * place.n_scores <= CACHED_SCORES and n_bytes <= room
        room -= n_bytes if is_plain else 0
        yield place, _Parts(heads[:, :, place.tokens], _seen(key, place), _seen(value, place)), is_plain


def _seen(stored: Tensor, place: Place) -> Tensor:
    parts = [stored[:, seen] for seen in place.sees]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _plain(parts: _Parts, mask: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
    """The tile's states (K, R, T, D) and its probabilities (K, R*T, S)."""
    K, R, T, D = parts.query.shape
    if mask is None:
        mask = _causal(T, parts.query)
    hidden = mask.repeat(R, 1)[None]
    scores = torch.baddbmm(hidden, parts.query.reshape(K, R * T, D), parts.key.mT, alpha=scaling)
    probs = torch.softmax(scores, -1)
    return torch.bmm(probs, parts.value).view(K, R, T, D), probs


def _plain_backward(grad: Tensor, parts: _Parts, probs: Tensor, scaling: float) -> _Parts:
    K, R, T, D = parts.query.shape
    grad, query = grad.reshape(K, R * T, D), parts.query.reshape(K, R * T, D)
    of_value = torch.bmm(probs.mT, grad)
    of_probs = torch.bmm(grad, parts.value.mT)
    of_scores = torch.ops.aten._softmax_backward_data(of_probs, probs, -1, probs.dtype)
    none = probs.new_empty(())
    of_query = torch.baddbmm(none, of_scores, parts.key, beta=0, alpha=scaling)
    of_key = torch.baddbmm(none, of_scores.mT, query, beta=0, alpha=scaling)
    return _Parts(of_query.view(K, R, T, D), of_key, of_value)


def _kernel_backward(
    grad: Tensor, parts: _Parts, states: Tensor, logsumexp: Tensor, mask: Tensor | None, scaling: float
) -> _Parts:
    of_query, of_key, of_value = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, *parts.heads_alike(), states, logsumexp, 0.0, mask is None, attn_mask=mask, scale=scaling
    )
    return _Parts(of_query, of_key.sum(1), of_value.sum(1))


def _repeated(stored: Tensor, times: int) -> Tensor:
    return stored[:, None].expand(-1, times, -1, -1)


def _causal(tokens: int, like: Tensor) -> Tensor:
    return like.new_full((tokens, tokens), -torch.inf).triu_(1)
