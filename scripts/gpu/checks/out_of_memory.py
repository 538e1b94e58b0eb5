"""`python -m scripts.gpu.checks.out_of_memory DEVICE FOLDER`: is a pass that does not fit made in halves?

The device's memory is really filled up, so that the passes of an update find two thirds of what they took
before. The update must end with the weights of one whose passes were small from the start. On a CPU the
device made of CPU memory stands in.
"""

from __future__ import annotations

import gc
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_counts.models import config_of, make_model, moved_policy
from methods.train_config import TrainConfig
from scripts.gpu.as_if_cuda import GIB, as_if_cuda
from workers.training.base.device_memory import free_bytes
from workers.training.base.pass_tokens import Halved
from workers.training.base.types import Completion, Group, Prompt
from workers.training.rewards import Rewards
from workers.training.update import make_optimizer, update_policy


class Size(NamedTuple):
    """Says how large the model and the step are."""

    hidden: int
    layers: int
    prompts: int
    samples: int
    tokens: int


LARGE, SMALL = Size(1024, 4, 8, 16, 384), Size(64, 2, 4, 4, 48)
"""On a GPU a pass takes some GB, so that the allocator's blocks of MB do not matter."""
LEFT = 0.67
"""The share of what an update took that is free the second time."""
TOLERANCE = 0.1
"""The most that the changes of weights may differ, relative to their norm. Chosen: the first step of AdamW is
as long for a gradient near 0 as for any, so rounding turns some around."""


class Updated(NamedTuple):
    """Is what an update did: the changes of weights, its peak of memory, and its passes."""

    changes: Tensor
    peak: int
    most: int
    halved: list[Halved]


def main(device: str, folder: Path) -> int:
    """Prints what happens; returns 1 if nothing was halved or the weights are others, else 0."""
    size = LARGE if device == "cuda" else SMALL
    with nullcontext() if device == "cuda" else as_if_cuda(total=2 * GIB):
        path = make_model(folder, size.layers, hidden=size.hidden)
        config = config_of(path, prompts_per_step=size.prompts, group_size=size.samples)
        plenty = updated(config, size)
        print(f"an update takes {plenty.peak / 1e6:,.0f} MB in passes of up to {plenty.most:,} tokens")
        short = updated(config, size, left=int(LEFT * plenty.peak))
        for halved in short.halved:
            print(f"halved: {halved.before:,} -> {halved.now:,} tokens; {halved.failure.said[:120]}")
        small = updated(config, size, most=short.most)
        off = [float((short.changes - one.changes).norm() / one.changes.norm()) for one in (small, plenty)]
        print(f"changes of weights: off by {off[0]:.1e} from small passes, {off[1]:.1e} from large ones")
        return int(not short.halved or bool(small.halved) or not max(off) <= TOLERANCE)


def updated(config: TrainConfig, size: Size, *, left: int | None = None, most: int | None = None) -> Updated:
    """Makes one update of a new policy, with so many bytes left free, in passes of so many tokens."""
    policy = moved_policy(config)
    policy.passes.most = policy.passes.most if most is None else most
    halved: list[Halved] = []
    policy.passes.tell = halved.append
    before = {name: weight.detach().clone() for name, weight in policy.trained().items()}
    optimizer, (groups, rewards) = make_optimizer(policy, config), step_of(size)
    gc.collect()
    torch.cuda.empty_cache()
    free = free_bytes(policy.device)
    assert free is not None
    filled = 0 if left is None else max(0, free - left)
    filler = torch.empty(filled, dtype=torch.uint8, device=policy.device)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    stats = update_policy(policy, optimizer, groups, rewards, config, 1)
    peak = torch.cuda.max_memory_allocated() - held
    del filler
    assert stats.trained_tokens > 0
    changes = [(weight.detach() - before[name]).flatten() for name, weight in policy.trained().items()]
    return Updated(torch.cat(changes).cpu(), peak, policy.passes.most, halved)


def step_of(size: Size) -> tuple[list[Group], Rewards]:
    """Returns made-up groups and rewards, the same each time."""
    generator = torch.Generator().manual_seed(0)

    def tokens() -> tuple[int, ...]:
        return tuple(torch.randint(0, 200, (size.tokens,), generator=generator).tolist())

    groups = []
    for row in range(size.prompts):
        completions = [
            Completion(tokens(), (-6.0,) * size.tokens, text="", finish_reason="length")
            for _ in range(size.samples)
        ]
        groups.append(Group(Prompt(row, {}, tokens()), tuple(completions)))
    values = torch.rand(size.prompts, size.samples, generator=generator, dtype=torch.float64)
    return groups, Rewards(values, torch.ones_like(values, dtype=torch.bool))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
