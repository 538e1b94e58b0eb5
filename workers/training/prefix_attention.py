"""Attention over a packed stream on a CPU: a prompt for all its completions at once, and each by itself.

Every token looks at its own prompt or completion, which takes one causal call of the library's kernel for
all that are of about the same length; then all completion tokens of a group look at their prompt, which takes
one call without a mask. The two parts are put together by their log-sum-exp. In the backward pass the kernel
gives each part its share of the gradient from the output and log-sum-exp of the whole (as between the devices
of ring attention, arXiv:2310.01889).

H query heads, K key/value heads, N tokens of the stream, D wide heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

RUN_TOKENS = 128
"""Tokens of neighbours of one length from which they are read where they lie; others are put together."""

PADDING = 16
"""Tokens by which sequences that are put together may differ in length; above, by a quarter."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Padded(NamedTuple):
    """Sequences of different lengths, put together.

    Attributes:
        places: (n * width,) the token in each place. A shorter sequence is filled with its first.
        real: the places that are not filled.
        tokens: the tokens in those places.
    """

    places: Tensor
    real: Tensor
    tokens: Tensor


class Sequences(NamedTuple):
    """Sequences of one width: side by side from `start` on, or where `padded` says."""

    start: int
    n: int
    width: int
    padded: Padded | None = None

    def take(self, values: Tensor) -> Tensor:
        """(N, heads, ...) -> (n, heads, width, ...)."""
        if self.padded is None:
            return self._rows(values[self.start : self.start + self.n * self.width])
        return self._rows(values.index_select(0, self.padded.places))

    def put(self, values: Tensor, found: Tensor) -> None:
        """The way back, over what is there."""
        if self.padded is None:
            self.take(values).copy_(found)
        else:
            places = found.transpose(1, 2).flatten(0, 1)
            values.index_copy_(0, self.padded.tokens, places.index_select(0, self.padded.real))

    def take_gradient(self, grad: Tensor) -> Tensor:
        """As `take`; what is only there to fill has none."""
        if self.padded is None:
            return self.take(grad)
        places = grad.new_zeros(self.n * self.width, *grad.shape[1:])
        return self._rows(places.index_copy_(0, self.padded.real, grad.index_select(0, self.padded.tokens)))

    def _rows(self, places: Tensor) -> Tensor:
        return places.view(self.n, self.width, *places.shape[1:]).transpose(1, 2)


class Prefix(NamedTuple):
    """A prompt, and the tokens of its completions behind it, which see all of it."""

    prompt: Sequences
    behind: Sequences


class Layout(NamedTuple):
    """A stream's sequences, each once, and what sees a prompt."""

    own: list[Sequences]
    prefixes: list[Prefix]


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """(N, H, D) queries, (N, K, D) keys and values -> (N, H, D). In fp32 or fp64."""
    found: Tensor = _Attention.apply(query, key, value, layout, scaling)  # type: ignore[no-untyped-call]
    return found


def make_layout(segments: Sequence[tuple[int, int, tuple[int, ...]]]) -> Layout:
    """(start, tokens of the prompt, tokens of each completion) of every group in a stream."""
    runs: list[Sequences] = []
    short: list[tuple[int, int]] = []
    prefixes: list[Prefix] = []
    for start, prompt, completions in segments:
        is_alone = len(completions) == 1
        lengths = (prompt + completions[0],) if is_alone else (prompt, *completions)
        starts = accumulate(lengths, initial=start)
        for length, same in groupby(zip(starts, lengths, strict=False), lambda place: place[1]):
            places = list(same)
            if length * len(places) >= RUN_TOKENS:
                runs.append(Sequences(places[0][0], len(places), length))
            elif length:
                short += places
        if not is_alone and any(completions):
            behind = Sequences(start + prompt, 1, sum(completions))
            prefixes.append(Prefix(Sequences(start, 1, prompt), behind))
    return Layout(runs + _put_together(short), prefixes)


def _put_together(places: Sequence[tuple[int, int]]) -> list[Sequences]:
    """(start, length) of sequences -> those of about the same length together."""
    left = sorted(places, key=lambda place: -place[1])
    found = []
    while left:
        width = left[0][1]
        n = sum(length >= width - max(PADDING, width // 4) for _, length in left)
        starts, lengths = (torch.tensor(numbers)[:, None] for numbers in zip(*left[:n], strict=True))
        column = torch.arange(width)
        is_real = column < lengths
        tokens = torch.where(is_real, starts + column, starts).flatten()
        real = is_real.flatten().nonzero()[:, 0]
        found.append(Sequences(0, n, width, Padded(tokens, real, tokens[real])))
        left = left[n:]
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
    ) -> Tensor:
        out, logsumexp = query.new_empty(query.shape), query.new_empty(query.shape[:2])
        for own in layout.own:
            states, sums = _forward(own.take(query), own.take(key), own.take(value), 0.0, True, scale=scaling)
            own.put(out, states)
            own.put(logsumexp, sums)
        for prompt, behind in layout.prefixes:
            states, more = _forward(
                behind.take(query), prompt.take(key), prompt.take(value), 0.0, False, scale=scaling
            )
            sums = behind.take(logsumexp)
            behind.take(out).lerp_(states, torch.sigmoid(more - sums)[..., None])
            sums.copy_(torch.logaddexp(sums, more))
        ctx.save_for_backward(query, key, value, out, logsumexp)
        ctx.layout, ctx.scaling = layout, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, logsumexp = ctx.saved_tensors
        grad = grad.contiguous()
        found = [torch.empty_like(operand) for operand in (query, key, value)]
        for own in ctx.layout.own:
            operands = own.take(query), own.take(key), own.take(value), own.take(out), own.take(logsumexp)
            shares = _backward(own.take_gradient(grad), *operands, 0.0, True, scale=ctx.scaling)
            for values, share in zip(found, shares, strict=True):
                own.put(values, share)
        for prompt, behind in ctx.layout.prefixes:
            keys = prompt.take(key), prompt.take(value)
            whole = behind.take(out), behind.take(logsumexp)
            shares = _backward(
                behind.take(grad), behind.take(query), *keys, *whole, 0.0, False, scale=ctx.scaling
            )
            for values, part, share in zip(found, (behind, prompt, prompt), shares, strict=True):
                part.take(values).add_(share)
        return *found, None, None
