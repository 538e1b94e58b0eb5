"""Kernels, graphs and waits of sampling."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_counts.models import config_of, make_model, moved_policy
from scripts.gpu.as_if_cuda import as_if_cuda
from scripts.gpu.device import Device
from workers.training.base.types import Prompt
from workers.training.model.policy import Policy
from workers.training.sampling.rollout import Sampling, sample_groups

PROMPTS, SAMPLES, TOKENS = 8, 4, 256
FEW_TOKENS = 64
GRAPHS_A_STEP = 2
"""The model's and the draw's."""


class Call(NamedTuple):
    """Is what one call of the sampler asked for; its decode steps are its tokens but the first."""

    steps: int
    captured: int
    """Graphs."""
    eager: int
    """Steps that no graph ran."""
    kernels_in_graphs: float
    """A step."""
    kernels_outside: float
    """A step, launched one by one; in a call without an eager step those that read the prompts."""
    waits: float
    """A step, for its tokens."""
    other_waits: int
    """In the call, for its prompts."""
    copies: float
    """A step."""


class Sampled(NamedTuple):
    """Is what was counted, a row of the table each."""

    kernels_a_layer: float
    kernels_beside_layers: float
    first: Call
    next: Call
    greedy: Call
    stopped: Call


def measure(folder: Path) -> Sampled:
    """Counts calls of the sampler over models of two and of four layers."""
    with as_if_cuda() as device:
        policy = moved_policy(config_of(make_model(folder, 2)))
        first = called(device, policy, TOKENS, 1)
        following = called(device, policy, TOKENS, 2)
        called(device, policy, FEW_TOKENS, 3, temperature=0.0)
        greedy = called(device, policy, FEW_TOKENS, 4, temperature=0.0)
        called(device, policy, FEW_TOKENS, 5, stop=("\u0001\u0002", "zzz"))
        stopped = called(device, policy, FEW_TOKENS, 6, stop=("\u0001\u0002", "zzz"))
    with as_if_cuda() as device:
        deeper = called(device, moved_policy(config_of(make_model(folder, 4))), 24, 1)
    a_layer = (deeper.kernels_in_graphs - first.kernels_in_graphs) / 2
    beside = first.kernels_in_graphs - 2 * a_layer
    return Sampled(a_layer, beside, first, following, greedy, stopped)


def called(
    device: Device,
    policy: Policy,
    tokens: int,
    step: int,
    *,
    temperature: float = 1.0,
    stop: tuple[str, ...] = (),
) -> Call:
    """Samples completions of so many tokens, and counts."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        Prompt(i, {}, tuple(torch.randint(0, 200, (20 + 3 * i,), generator=generator).tolist()))
        for i in range(PROMPTS)
    ]
    device.counts.clear()
    sample_groups(policy, prompts, Sampling(SAMPLES, tokens, temperature, ("bench", step), stop=stop))
    counts, steps = device.counts, tokens - 1
    for_tokens = sum(n for (kind, _), n in counts.waits.items() if kind == "synchronize an event")
    return Call(
        steps=steps,
        captured=len(counts.captured),
        eager=max(0, steps - counts.replays // GRAPHS_A_STEP),
        kernels_in_graphs=counts.replayed.total() / steps,
        kernels_outside=counts.kernels.total() / steps,
        waits=for_tokens / steps,
        other_waits=counts.waits.total() - for_tokens,
        copies=counts.copies.total() / steps,
    )
