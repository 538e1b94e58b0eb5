"""What an update's passes ask of a GPU beside their products: masks, copies and waits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu_counts.models import config_of, make_model, moved_policy
from scripts.gpu.as_if_cuda import as_if_cuda
from scripts.gpu.counts import Counts
from workers.training.base.types import Prompt
from workers.training.rewards import Rewards
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.update import make_optimizer, update_policy

PROMPTS, SAMPLES, WIDTH, TOKENS = 4, 8, 96, 48
OF_A_PASS = ("workers/training/passes/", "workers/training/model/", "workers/training/kernels/")
"""Where a pass's own lines are."""


class Updated(NamedTuple):
    """Is what one update of about 2,000 packed tokens asked for."""

    mask_bytes: int
    """Of masks made on the host."""
    copied_bytes: int
    waits: int
    waits_of_passes: int
    """Asked for by what runs in a pass; one reads the reference and one trains."""
    places: dict[str, int]
    """Of all waits, by the line that asked."""


def measure(folder: Path, *, layers: int = 2) -> Updated:
    """Counts the second update of a policy of so many layers; the first warms up."""
    generator = torch.Generator().manual_seed(0)
    prompts = [
        Prompt(i, {}, tuple(torch.randint(0, 200, (WIDTH,), generator=generator).tolist()))
        for i in range(PROMPTS)
    ]
    values = torch.rand(PROMPTS, SAMPLES, generator=generator, dtype=torch.float64)
    rewards = Rewards(values, torch.ones_like(values, dtype=torch.bool))
    config = config_of(make_model(folder, layers), prompts_per_step=PROMPTS, group_size=SAMPLES)
    with as_if_cuda() as device:
        policy = moved_policy(config)
        optimizer = make_optimizer(policy, config)
        groups = sample_groups(policy, prompts, Sampling(SAMPLES, TOKENS, 1.0, ("bench", 1)))
        for step in (1, 2):
            device.counts.clear()
            update_policy(policy, optimizer, groups, rewards, config, step)
        return _read(device.counts)


def _read(counts: Counts) -> Updated:
    sizes = {at: size for at, size in counts.copied.items() if at[0] == "host->device"}
    places = {place: n for (_, place), n in counts.waits.most_common()}
    return Updated(
        mask_bytes=sum(size for (_, place), size in sizes.items() if "/packed_attention.py" in place),
        copied_bytes=sum(sizes.values()),
        waits=counts.waits.total(),
        waits_of_passes=sum(n for place, n in places.items() if place.startswith(OF_A_PASS)),
        places=places,
    )
