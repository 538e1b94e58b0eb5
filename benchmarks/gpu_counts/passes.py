"""Copies of an update's passes, and the pieces in which logits are computed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_counts.models import config_of, make_model, moved_policy
from scripts.gpu.as_if_cuda import GIB, as_if_cuda
from workers.training.base.types import Prompt
from workers.training.rewards import Rewards
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.update import make_optimizer, update_policy

PROMPTS, SAMPLES, WIDTH, TOKENS = 4, 8, 96, 48
VOCABULARY, PASS_TOKENS = 151_936, 16_384
FREE = (20 * GIB, 60 * GIB, 120 * GIB)


class Updated(NamedTuple):
    """Is what one update of about 2,000 packed tokens asked for."""

    mask_bytes: int
    copied_bytes: int
    kernels: int
    waits: int


def measure(folder: Path) -> Updated:
    """Counts the second update of a policy; the first warms up."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        Prompt(i, {}, tuple(torch.randint(0, 200, (WIDTH,), generator=generator).tolist()))
        for i in range(PROMPTS)
    ]
    values = torch.rand(PROMPTS, SAMPLES, generator=generator, dtype=torch.float64)
    rewards = Rewards(values, torch.ones_like(values, dtype=torch.bool))
    config = config_of(make_model(folder, 2), prompts_per_step=PROMPTS, group_size=SAMPLES)
    with as_if_cuda() as device:
        policy = moved_policy(config)
        optimizer = make_optimizer(policy, config)
        groups = sample_groups(policy, prompts, Sampling(SAMPLES, TOKENS, 1.0, ("bench", 1)))
        for step in (1, 2):
            device.counts.clear()
            update_policy(policy, optimizer, groups, rewards, config, step)
        counts = device.counts
        sizes = {at: size for at, size in counts.copied.items() if at[0] == "host->device"}
        masks = sum(size for (_, place), size in sizes.items() if "/packed_attention.py" in place)
        return Updated(masks, sum(sizes.values()), counts.kernels.total(), counts.waits.total())
