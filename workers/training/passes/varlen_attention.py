"""Attention over a packed stream on a GPU in 16 bits: two calls of a library, and no masks.

The stream (packing.py) is cut into sequences that each look at themselves: prompts, and completions. The
second call lets all completions of a group look at their prompt. What a completion's token sees is the union,
so the parts are put together by their log-sum-exps; and because a part's gradient is a function of the
union's output and log-sum-exp alone, so are their gradients, without an approximation.

The library is PyTorch's own FlashAttention-2, by `cherry::varlen_forward` and `cherry::varlen_backward`. On a
CPU these two are plain PyTorch: the reference of tests, and of a trial before a GPU is trusted
(varlen_trial.py).

H query heads, K key/value heads, N tokens of the stream, D wide heads.

Sources: Dao 2023, arXiv:2307.08691; the gradients of parts: Liu et al. 2023, arXiv:2310.01889, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

Result = tuple[Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor]


class Sequences(NamedTuple):
    """Says which queries look at which keys in one call.

    Attributes:
        queries: (n + 1,) int32, where each of n sequences of queries begins and the last ends.
        keys: (n + 1,) int32, the same of the keys that they look at.
        longest_query: tokens, at least.
        longest_key: tokens, at least.
        is_causal: a sequence is its own keys, and no token looks ahead.
    """

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int
    is_causal: bool


class Layout(NamedTuple):
    """Is a stream as the calls read it.

    Attributes:
        own: all sequences, each of which looks at itself.
        shared: the completions of each group, which look at its prompt; None where there are none.
        completions: the places of these in the stream.
        prompts: the places of the prompts that they look at.
    """

    own: Sequences
    shared: Sequences | None
    completions: Tensor
    prompts: Tensor


def make_layout(segments: Sequence[tuple[int, int, tuple[int, ...]]], device: torch.device) -> Layout:
    """Lays out (start, tokens of the prompt, tokens of each completion) of every group, by one copy.

    A prompt with one completion is one sequence.
    """
    runs: list[int] = []
    prompts: list[range] = []
    completions: list[range] = []
    for start, prompt, lengths in segments:
        if len(lengths) == 1 or not any(lengths):
            runs.append(prompt + sum(lengths))
            continue
        runs += [prompt, *filter(None, lengths)]
        prompts.append(range(start, start + prompt))
        completions.append(range(start + prompt, start + prompt + sum(lengths)))
    bounds = [
        _bounds(runs),
        *(_bounds([len(places) for places in parts]) for parts in (completions, prompts)),
        *([place for places in parts for place in places] for parts in (completions, prompts)),
    ]
    moved = torch.tensor([number for part in bounds for number in part], dtype=torch.int32).to(device)
    own, queries, keys, *places = torch.split(moved, list(map(len, bounds)))
    longest = max(2, *runs) if runs else 2
    shared = None
    if prompts:
        # With one query a sequence the library would take a path for decoding, whose results lie otherwise.
        shared = Sequences(queries, keys, max(2, *map(len, completions)), max(map(len, prompts)), False)
    return Layout(Sequences(own, own, longest, longest, True), shared, *(place.long() for place in places))


def _bounds(lengths: Sequence[int]) -> list[int]:
    return [*accumulate(lengths, initial=0)]


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Computes (N, H, D) queries, (N, K, D) keys and values -> (N, H, D)."""
    found: Tensor = _Attention.apply(query, key, value, layout, scaling)  # type: ignore[no-untyped-call]
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
    ) -> Tensor:
        operands = query.contiguous(), key.contiguous(), value.contiguous()
        out, sums = attend_parts(operands, layout, scaling)
        ctx.save_for_backward(*operands, out, sums)
        ctx.layout, ctx.scaling = layout, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *operands, out, sums = ctx.saved_tensors
        found = gradients(grad.contiguous(), operands, out, sums, ctx.layout, ctx.scaling)
        return *found, None, None


def attend_parts(
    operands: Sequence[Tensor], layout: Layout, scaling: float, call: Callable[..., Result] | None = None
) -> Result:
    """Computes the output (N, H, D) and the log-sum-exp of scores (H, N) of both parts together.

    `call` computes one part; by default `cherry::varlen_forward`.
    """
    call = call or varlen_forward
    query, key, value = operands
    out, sums = call(query, key, value, *layout.own, scaling)
    if layout.shared is None:
        return out, sums
    places, prompts = layout.completions, layout.prompts
    seen = query.index_select(0, places), key.index_select(0, prompts), value.index_select(0, prompts)
    of_prompt, prompt_sums = call(*seen, *layout.shared, scaling)
    own, own_sums = out.index_select(0, places), sums.index_select(1, places)
    both = torch.logaddexp(own_sums, prompt_sums)
    share = torch.exp(prompt_sums - both).T[..., None]
    merged = torch.lerp(own.to(share.dtype), of_prompt.to(share.dtype), share)
    return out.index_copy_(0, places, merged.to(out.dtype)), sums.index_copy_(1, places, both)


def gradients(
    grad: Tensor,
    operands: Sequence[Tensor],
    out: Tensor,
    sums: Tensor,
    layout: Layout,
    scaling: float,
    call: Callable[..., Gradients] | None = None,
) -> Gradients:
    """Returns the gradients of queries, (N, H, D), keys and values, (N, K, D), by what `attend_parts` found.

    `call` computes those of one part; by default `cherry::varlen_backward`.
    """
    call = call or varlen_backward
    query, key, value = operands
    found = call(grad, query, key, value, out, sums, *layout.own, scaling)
    if layout.shared is None:
        return found
    places, prompts = layout.completions, layout.prompts
    more = call(
        grad.index_select(0, places),
        query.index_select(0, places),
        key.index_select(0, prompts),
        value.index_select(0, prompts),
        out.index_select(0, places),
        sums.index_select(1, places),
        *layout.shared,
        scaling,
    )
    for total, part, where in zip(found, more, (places, prompts, prompts), strict=True):
        total.index_add_(0, where, part)
    return found


@torch.library.custom_op("cherry::varlen_forward", mutates_args=(), device_types="cpu")
def varlen_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest_query: int,
    longest_key: int,
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """Lets each sequence of `queries` attend to that of `keys`: the output (N, H, D), log-sum-exps (H, N)."""
    return plain_forward(query, key, value, queries, keys, longest_query, longest_key, is_causal, scaling)


@varlen_forward.register_kernel("cuda")
def _forward_on_gpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest_query: int,
    longest_key: int,
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    bounds = queries, keys, longest_query, longest_key
    found = torch.ops.aten._flash_attention_forward(
        query, key, value, *bounds, 0.0, is_causal, False, scale=scaling
    )
    return found[0], found[1]


@varlen_forward.register_fake
def _fake_forward(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[1], len(query), dtype=torch.float32)


@torch.library.custom_op("cherry::varlen_backward", mutates_args=(), device_types="cpu")
def varlen_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest_query: int,
    longest_key: int,
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of query, key and value by that of the output (N, H, D), and both results."""
    bounds = queries, keys, longest_query, longest_key
    return plain_backward(grad, query, key, value, out, sums, *bounds, is_causal, scaling)


@varlen_backward.register_kernel("cuda")
def _backward_on_gpu(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest_query: int,
    longest_key: int,
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    operands = grad, query, key, value, out, sums, queries, keys, longest_query, longest_key
    seed, unused = queries.new_zeros(2, dtype=torch.uint64), query.new_empty(0)  # of a dropout that is none
    found: Gradients = torch.ops.aten._flash_attention_backward(
        *operands, 0.0, is_causal, seed, unused, scale=scaling
    )
    return found


@varlen_backward.register_fake
def _fake_backward(
    _grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def plain_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tensor,
    keys: Tensor,
    _longest_query: int,
    _longest_key: int,
    is_causal: bool,
    scaling: float,
) -> Result:
    """Is `varlen_forward` in plain PyTorch, a sequence at a time, in fp32 or above: (N, H, D) and (H, N)."""
    wide = torch.promote_types(query.dtype, torch.float32)
    out = torch.empty_like(query)
    sums = query.new_empty(query.shape[1], len(query), dtype=wide)
    for of_query, of_key in _windows(queries, keys):
        scores = _scores(query[of_query], key[of_key], is_causal, scaling, wide)
        sums[:, of_query] = scores.logsumexp(-1)
        values = _for_each_query_head(value[of_key].to(wide), query.shape[1])
        out[of_query] = (scores.softmax(-1) @ values).transpose(0, 1).to(out.dtype)
    return out, sums


def plain_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    queries: Tensor,
    keys: Tensor,
    _longest_query: int,
    _longest_key: int,
    is_causal: bool,
    scaling: float,
) -> Gradients:
    """Is `varlen_backward` in plain PyTorch, by sequence, in fp32 or above, of (N, H, D) slopes."""
    wide = torch.promote_types(query.dtype, torch.float32)
    found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    heads = query.shape[1]
    for of_query, of_key in _windows(queries, keys):
        scores = _scores(query[of_query], key[of_key], is_causal, scaling, wide)
        probs = (scores - sums[:, of_query, None]).exp()
        slope = grad[of_query].to(wide).transpose(0, 1)
        mean = (slope * out[of_query].to(wide).transpose(0, 1)).sum(-1, keepdim=True)
        of_scores = probs * (slope @ _for_each_query_head(value[of_key].to(wide), heads).mT - mean) * scaling
        of_heads = (
            of_scores @ _for_each_query_head(key[of_key].to(wide), heads),
            of_scores.mT @ query[of_query].to(wide).transpose(0, 1),
            probs.mT @ slope,
        )
        for total, part, where in zip(found, of_heads, (of_query, of_key, of_key), strict=True):
            each = part.view(total.shape[1], -1, *part.shape[1:]).sum(1)
            total[where] = each.transpose(0, 1).to(total.dtype)
    return found


def _windows(queries: Tensor, keys: Tensor) -> list[tuple[slice, slice]]:
    pairs = zip(pairwise(queries.tolist()), pairwise(keys.tolist()), strict=True)
    return [(slice(*of_query), slice(*of_key)) for of_query, of_key in pairs]


def _scores(query: Tensor, key: Tensor, is_causal: bool, scaling: float, wide: torch.dtype) -> Tensor:
    """Computes (n, H, D), (m, K, D) -> (H, n, m)."""
    keys = _for_each_query_head(key.to(wide), query.shape[1])
    scores = query.to(wide).transpose(0, 1) @ keys.mT * scaling
    if is_causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores


def _for_each_query_head(operand: Tensor, heads: int) -> Tensor:
    """Repeats (m, K, D) to (H, m, D): query head h reads key head h // (H / K)."""
    return operand.transpose(0, 1).repeat_interleave(heads // operand.shape[1], 0)
