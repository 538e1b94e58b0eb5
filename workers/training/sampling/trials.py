"""Small trials of a way to sample: its steps' logits against those of whole sequences, once for each model.

n prompts, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from workers.training.model import attention
from workers.training.sampling.decode_step import ActiveRows

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}
"""The largest norm of the difference between steps' and whole sequences' logits, relative to theirs. Measured
on 90 families of tiny random models in fp32: at most 3e-6, but for 1.1e-5 of Zamba 2, whose logprobs are then
4e-4 nats off; 0.5 where padding is read.
"""
HALF_TOLERANCE = 5e-2
"""The same in 16 bits. Chosen as for packed states (passes/path.py). A deep model rounds more: what
embeddings do that are off by half a unit in the last place counts as rounding too (model/attention.py).
"""

LENGTHS = (5, 140)
"""Tokens of the prompts. Chosen: below and above a chunk of linear attention (64) and a block of DeepSeek
V4's compressed attention (128), which counts padding (findings/transformers-deepseek-v4-sees-padding).
"""
STEPS = 9
"""Tokens that are read one by one after each. Chosen: a wrong position or state shows at the first, a block
of four tokens that was put together wrongly when the second is full.
"""

SAMPLES = 2
"""Completions of each prompt. Chosen: two show whether what was kept of a prompt is copied rightly."""

Prefill = Callable[[Tensor, Tensor], Tensor]
"""(n, L) ids, padded on the right, and (n,) lengths -> (n, V) logits of the next token."""
Decode = Callable[[ActiveRows, Tensor], Tensor]


class Trial(NamedTuple):
    """Holds prompts and the tokens of the completions that follow, (n * samples, steps)."""

    prompts: Sequence[Tensor]
    following: Tensor


def make_trial(model: Any) -> Trial:
    """Returns random tokens of a model; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = len(LENGTHS) * SAMPLES
    n = sum(LENGTHS) + rows * STEPS
    ids = torch.randint(vocabulary, (n,), generator=generator).to(attention.some_tokens(model).device)
    *prompts, following = torch.split(ids, [*LENGTHS, rows * STEPS])
    return Trial(prompts, following.view(rows, STEPS))


@torch.no_grad()
def is_right(model: Any, prefill: Prefill, decode: Decode) -> bool:
    """Says whether a way of sampling, which is empty yet, gives the logits of whole sequences."""
    trial = make_trial(model)
    try:
        found = by_steps(trial, prefill, decode)
        expected = by_whole_sequences(model, trial)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False  # whatever the model's own code says to a cache that it does not know
    apart, size = float((found - expected).norm()), float(expected.norm())
    tolerance = TOLERANCE.get(model.dtype, HALF_TOLERANCE)
    if apart <= tolerance * max(size, torch.finfo(torch.float32).tiny):  # NaN is no agreement
        return True
    if model.dtype in TOLERANCE:
        return False
    with attention.nudged(model):
        return apart <= float((by_whole_sequences(model, trial) - expected).norm())


def by_steps(trial: Trial, prefill: Prefill, decode: Decode) -> Tensor:
    """Returns the logits behind each prompt and each token that follows: (n * samples, steps + 1, V)."""
    lengths = torch.tensor([len(prompt) for prompt in trial.prompts])
    ids = torch.nn.utils.rnn.pad_sequence(list(trial.prompts), batch_first=True)
    logits = [prefill(ids, lengths.to(ids.device)).repeat_interleave(SAMPLES, 0)]
    rows = np.repeat(np.arange(len(lengths)), SAMPLES)
    for k in range(trial.following.shape[1]):
        active = ActiveRows(rows, np.full(len(rows), k + 1), lengths.numpy())
        logits.append(decode(active, trial.following[:, k]).clone())
    return torch.stack(logits, 1).float()


def by_whole_sequences(model: Any, trial: Trial) -> Tensor:
    """Returns the same without any cache."""
    found = []
    prompts = [prompt for prompt in trial.prompts for _ in range(SAMPLES)]
    for prompt, following in zip(prompts, trial.following, strict=True):
        logits = model(input_ids=torch.cat([prompt, following])[None], use_cache=False).logits
        found.append(logits[0, len(prompt) - 1 :])
    return torch.stack(found).float()
