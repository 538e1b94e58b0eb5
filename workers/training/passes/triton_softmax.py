"""`cherry::softmax_step` in Triton: a program reads a row of logits twice and writes it once.

n rows, V tokens in the vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Logits of a row that a program holds at a time. Chosen: 32 for each of its 128 threads."""


@triton.jit
def softmax_step_kernel(
    logits,
    targets,
    logprobs,
    entropies,
    vocabulary,
    stride,
    scale,
    WANTS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Does one row; each lane keeps the largest logit and the sums of its own.

    Source: online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    at = tl.arange(0, BLOCK)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        inside = start + at < vocabulary
        score = tl.load(logits + start + at, mask=inside, other=float("-inf")).to(tl.float32) * scale
        above = tl.maximum(most, score)
        is_some = above > float("-inf")
        keep = tl.where(is_some, tl.exp(most - above), 0.0)
        weight = tl.where(is_some, tl.exp(score - above), 0.0)
        total = total * keep + weight
        weighted = weighted * keep + tl.where(weight > 0, weight * score, 0.0)
        most = above
    highest = tl.max(most, 0)
    share = tl.where(most > float("-inf"), tl.exp(most - highest), 0.0)
    whole = tl.sum(total * share, 0)
    level = highest + tl.log(whole)
    target = tl.load(targets + row)
    tl.store(logprobs + row, tl.load(logits + target).to(tl.float32) * scale - level)
    tl.store(entropies + row, level - tl.sum(weighted * share, 0) / whole)
    if WANTS_SLOPES:
        tl.debug_barrier()  # no thread writes what another has still to read: the target's logit
        for start in range(0, vocabulary, BLOCK):
            inside = start + at < vocabulary
            score = tl.load(logits + start + at, mask=inside, other=float("-inf")).to(tl.float32) * scale
            slope = (tl.where(start + at == target, 1.0, 0.0) - tl.exp(score - level)) * scale
            tl.store(logits + start + at, slope.to(logits.dtype.element_ty), mask=inside)


def softmax_step(
    logits: Tensor, targets: Tensor, temperature: float, wants_slopes: bool
) -> tuple[Tensor, Tensor]:
    """Computes what that operation does (softmax_step.py), in 32 or 16 bits: (n, V) -> (n,) each."""
    n, vocabulary = logits.shape
    logprobs = logits.new_empty(n, dtype=torch.float32)
    entropies = torch.empty_like(logprobs)
    if n:
        softmax_step_kernel[(n,)](
            logits,
            targets,
            logprobs,
            entropies,
            vocabulary,
            logits.stride(0),
            1 / temperature,
            WANTS_SLOPES=wants_slopes,
            BLOCK=BLOCK,
            num_warps=4,
        )
    return logprobs, entropies
