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


class Call(NamedTuple):
    """Is what one call of the sampler asked for; its decode steps are its tokens but the first."""

    steps: int
    captured: int
    replayed: int
    kernels_in_graphs: float
    """A replay."""
    kernels_outside: float
    """A step, launched one by one. Of a call without a step that was run eagerly or captured."""
    waits: float
    """A step."""
    copies: float
    """A step."""

    @property
    def eager(self) -> int:
        """Returns how many steps were neither captured nor replayed."""
        return max(0, self.steps - self.replayed)


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
    return Call(
        steps=steps,
        captured=len(counts.captured),
        replayed=counts.replays,
        kernels_in_graphs=counts.replayed.total() / max(counts.replays, 1),
        kernels_outside=counts.kernels.total() / steps,
        waits=counts.waits.total() / steps,
        copies=counts.copies.total() / steps,
    )
