"""Log-probability, entropy and KL of each token, from states and an output layer.

Logits exist for some tokens at a time, because a whole batch of them would be the largest tensor of a run.
The softmax is in fp32 whatever the model computes in. N tokens, H wide states, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from methods.sizes.activations import HEAD_GRADIENTS
from workers.training.base.device_memory import free_bytes
from workers.training.base.divergences import kl_exact
from workers.training.model.grammar import Allowed
from workers.training.passes.softmax_step import softmax_step

LOGIT_BYTES = 128 * 2**20
"""The size of the fp32 logits that exist at the same time. A few tensors of this size are needed beside
them. Measured for a trained output layer of 8,192 tokens, forward and backward: 0.7 to 0.9 s in one chunk of
128 MiB, 0.8 to 1.4 in chunks of 4 to 64 MiB, whose logits are computed again (docs/benchmarks.md).
"""

FREE_SHARE = 8
"""What part of a GPU's free memory the fp32 logits take that exist at the same time, as 1 / n. Chosen: with
what is made of them (probabilities, gradient, the logits themselves) they then take half of it.
"""
MOST_BYTES = 2 * 2**30
"""The size above which a GPU gains nothing. Chosen: 3,500 rows of a vocabulary of 152,000, whose products are
long enough for any GPU.
"""

LEAST_ROWS = 64
"""Rows below which a product with the output layer is a slow one. Measured with cherry-nano: a row takes 9
us in products of 8, 6 to 8 in 32 and 64, 5 in 128 (docs/benchmarks.md).
"""

CACHED_BYTES = 2 * 2**20
"""The size of the logits of a frozen output layer on a CPU, which do not leave the cache where they fit in
it. Measured with cherry-nano: from 0.5 to 16 MiB all alike, 0.25 MiB takes a tenth more (docs/benchmarks.md).
"""


def token_logprobs(
    states: Tensor,
    head: Any,
    targets: Tensor,
    temperature: float,
    allowed: Allowed | None = None,
    *,
    logit_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns each target's log-probability at the sampling temperature, and the entropy, (N,) each, nats.

    Both are those of the distribution over the `allowed` tokens, or over all; the entropy has no gradient.
    One chunk of logits keeps its probabilities for the backward pass; of several, each is computed again.
    Where the output layer is not trained, the gradient of the states is found on the way there.

    Args:
        states: (N, H).
        head: the output layer, (..., H) -> (..., V).
        targets: (N,) token ids.
        temperature: of sampling.
        allowed: of N places; None for the whole vocabulary.
        logit_bytes: most bytes of fp32 logits at a time; None for what is right for the device. It changes no
            result beyond rounding.
    """
    if logit_bytes is None:
        logit_bytes = bytes_at_a_time(states.device, _gradient_bytes(head))
    if _is_product(states, head):
        found = _FrozenProduct.apply(states, head.weight, targets, temperature, allowed, logit_bytes)  # type: ignore[no-untyped-call]
        return found[0], found[1]
    if _is_frozen(states, head):
        found = _FrozenLogprobs.apply(  # type: ignore[no-untyped-call]
            states, head.weight, targets, temperature, allowed, logit_bytes
        )
        return found[0], found[1]
    chunks = _chunks(states, head, logit_bytes)
    run: Callable[..., tuple[Tensor, Tensor]] = _chunk_logprobs
    if torch.is_grad_enabled() and len(chunks) > 1:
        run = partial(checkpoint, _chunk_logprobs, use_reentrant=False, preserve_rng_state=False)
    results = []
    size = len(chunks[0])
    masks = allowed.split(size) if allowed else [None] * len(chunks)
    for chunk, wanted, mask in zip(chunks, torch.split(targets, size), masks, strict=True):
        results.append(run(chunk, head, wanted, temperature, mask))
    logprobs, entropies = zip(*results, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


@torch.no_grad()
def token_kl(
    states: Tensor, head: Any, ref_states: Tensor, ref_head: Any, *, logit_bytes: int | None = None
) -> Tensor:
    """Returns the exact KL(policy || reference) over the vocabulary at each token, temperature 1.

    (N, H) each -> (N,), nats.
    """
    logit_bytes = bytes_at_a_time(states.device) if logit_bytes is None else logit_bytes
    chunks = _chunks(states, head, logit_bytes)
    pairs = zip(chunks, torch.split(ref_states, len(chunks[0])), strict=True)
    return torch.cat([kl_exact(head(chunk), ref_head(ref_chunk)) for chunk, ref_chunk in pairs])


def _gradient_bytes(head: Any) -> int:
    """Returns what gradients of a trained output layer take while they are found."""
    if not torch.is_grad_enabled() or not head.weight.requires_grad:
        return 0
    return int(max(HEAD_GRADIENTS) * 4 * head.weight.numel())


def bytes_at_a_time(device: torch.device, spared: int = 0) -> int:
    """Returns how many bytes of fp32 logits exist at a time: on a GPU by its free memory but `spared` bytes.

    Where algorithms are to be deterministic it does not depend on that.
    """
    free = free_bytes(device)
    if free is None or torch.are_deterministic_algorithms_enabled():
        return LOGIT_BYTES
    return max(LOGIT_BYTES, min(MOST_BYTES, (free - spared) // FREE_SHARE))


def _chunks(states: Tensor, head: Any, logit_bytes: int) -> Sequence[Tensor]:
    """Cuts (N, H) states into as few even chunks as the size of their logits allows."""
    most = max(1, logit_bytes // (4 * head.weight.shape[0]))
    n_chunks = max(1, -(-len(states) // most))
    return torch.split(states, max(1, -(-len(states) // n_chunks)))


def _chunk_logprobs(
    states: Tensor, head: Any, targets: Tensor, temperature: float, allowed: Allowed | None
) -> tuple[Tensor, Tensor]:
    logits = head(states) if allowed is None else allowed.apply(head(states))
    logprobs, entropy = _Logprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropy


def _is_frozen(states: Tensor, head: Any) -> bool:
    """Says whether the output layer is a plain product by a frozen matrix, in fp32 on a CPU."""
    is_on_cpu = states.device.type == "cpu" and states.dtype == torch.float32
    return is_on_cpu and _has_frozen_matrix(states, head)


def _is_product(states: Tensor, head: Any) -> bool:
    """Says the same of any other device or dtype, where nothing else is made of the layer's states."""
    is_on_cpu = states.device.type == "cpu" and states.dtype == torch.float32
    is_hooked = "forward" in vars(head) or getattr(head, "_forward_hooks", None)
    return not is_on_cpu and not is_hooked and _has_frozen_matrix(states, head)


def _has_frozen_matrix(states: Tensor, head: Any) -> bool:
    kind = type(head)
    return (
        kind is nn.Linear
        and head.bias is None
        and not isinstance(head.weight, DTensor)
        and not head.weight.requires_grad
        and states.device == head.weight.device
        and states.dtype == head.weight.dtype
    )


class _FrozenProduct(torch.autograd.Function):
    """Computes the log-softmax at the targets, on any device, a chunk at a time: two products, one operation.

    As in `_FrozenLogprobs`, the gradient of the states is found while the logits are at hand.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        allowed: Allowed | None,
        logit_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        n, vocabulary = len(states), len(weight)
        most = max(1, logit_bytes // (4 * vocabulary))
        size = max(1, -(-n // max(1, -(-n // most))))
        wants_slopes = ctx.needs_input_grad[0]
        slopes = torch.empty_like(states) if wants_slopes else None
        buffer = states.new_empty(min(n, size), vocabulary)
        masks = allowed.split(size) if allowed else None
        results = []
        for i, start in enumerate(range(0, max(1, n), size)):
            window = slice(start, start + size)
            logits = torch.mm(states[window], weight.T, out=buffer[: min(size, n - start)])
            if masks:
                masks[i].apply(logits)
            results.append(softmax_step(logits, targets[window], temperature, wants_slopes))
            if slopes is not None:
                torch.mm(logits, weight, out=slopes[window])
        logprobs, entropies = map(torch.cat, zip(*results, strict=True))
        if slopes is not None:
            ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradient[:, None]).to(slopes.dtype), None, None, None, None, None


class _FrozenLogprobs(torch.autograd.Function):
    """Computes the log-softmax at the targets by a compiled kernel (kernels/softmax.py), some rows at a time.

    A log-probability's gradient is a fixed vector of H numbers times that of the loss, so it is found while
    the logits are at hand: none are kept, and none computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        allowed: Allowed | None,
        logit_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        from workers.training.kernels import softmax, threads

        n, vocabulary = len(states), len(weight)
        rows = max(LEAST_ROWS, CACHED_BYTES // (4 * vocabulary))
        size = max(1, min(rows, logit_bytes // (4 * vocabulary)))
        wants_slopes = ctx.needs_input_grad[0]
        logprobs, entropies = states.new_empty(n), states.new_empty(n)
        slopes = torch.empty_like(states) if wants_slopes else None
        buffer = states.new_empty(min(n, size), vocabulary)
        masks = allowed.split(size) if allowed else None
        for i, start in enumerate(range(0, n, size)):
            window = slice(start, start + size)
            logits = torch.mm(states[window], weight.T, out=buffer[: min(size, n - start)])
            if masks:
                masks[i].apply(logits)
            threads.in_parallel(
                softmax.target_logprobs,
                len(logits),
                1,
                logits.numpy(),
                targets[window].numpy(),
                np.float32(1 / temperature),
                logprobs[window].numpy(),
                entropies[window].numpy(),
                wants_slopes,
            )
            if slopes is not None:
                torch.mm(logits, weight, out=slopes[window])
        if slopes is not None:
            ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * gradient[:, None], None, None, None, None, None


class _Logprobs(torch.autograd.Function):
    """Computes the log-softmax at the targets, with two tensors of the size of the logits instead of six."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        scaled = logits.float() if temperature == 1 else logits.float() / temperature
        logprobs = torch.log_softmax(scaled, -1)
        probs = logprobs.exp()
        entropy = -torch.linalg.vecdot(probs, logprobs)
        ctx.save_for_backward(probs, targets)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.mark_non_differentiable(entropy)
        return logprobs.gather(-1, targets[:, None])[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        probs, targets = ctx.saved_tensors
        gradient = (gradient / ctx.temperature)[:, None]
        of_logits = probs * -gradient
        of_logits.scatter_add_(-1, targets[:, None], gradient)
        return of_logits.to(ctx.dtype), None, None
