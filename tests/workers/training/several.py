"""What test_distributed.py has processes do: `torchrun ... -m tests.workers.training.several FOLDER DEVICE`.

FOLDER/tasks.json holds a list of runs; what the processes saw of each other goes to FOLDER/seen.json.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from methods.rows import Row
from methods.train_config import TrainConfig
from tests.workers.training.passes.small_memory import SmallMemory
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_rows
from workers.training.base.distributed import World
from workers.training.base.errors import PassTooLarge, ProcessesDiffer, RunCancelled, RunPaused
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.model.sharding import clip_gradients

TEXTS = ("one", "two", "three", "four", "five")
TOO_LARGE = "too_large.txt"
"""What a process whose pass was too large leaves in FOLDER: the tokens that it may have next time."""


def run(task: dict[str, Any], world: World) -> None:
    """Train five rows, three of them for validation too; stop after `steps` if the task says so.

    `task` is {"name", "folder", "config", "steps"}, and lists of other texts for "train", "valid" and
    "canary"; metrics go to FOLDER/NAME.json. "holds" has the tokens of a pass that the device of each process
    holds, and "most" those that passes may have.
    """
    stops = iter([False] * task["steps"] + [True] * 1000)
    recorder = ListRecorder()
    folder = Path(task["folder"])
    canary = [Row(i + 1, {"text": text}) for i, text in enumerate(task.get("canary", []))]
    with contextlib.suppress(RunCancelled, RunPaused), devices_hold(task.get("holds"), world):
        train(
            TrainConfig(**task["config"]),
            make_rows(*task.get("train", TEXTS)),
            make_rows(*task.get("valid", TEXTS[:3])),
            FunctionGrader(early_letters),
            recorder,
            folder / task["name"],
            lambda: next(stops),
            world,
            canary_rows=canary or None,
            most_pass_tokens=task.get("most"),
        )
    if world.is_main:
        (folder / f"{task['name']}.json").write_text(json.dumps(recorder.history()))


@contextlib.contextmanager
def devices_hold(tokens: Sequence[int] | None, world: World) -> Iterator[None]:
    """Lets passes with more tokens run out of memory inside; `tokens` are of each process."""
    load = Policy.load

    def loaded(*given: Any) -> Policy:
        policy = load(*given)
        if tokens is not None:
            SmallMemory(policy.model, tokens[world.rank])
        return policy

    with patch.object(Policy, "load", loaded):
        yield


def look(world: World) -> dict[str, Any]:
    """Every call of a world, once."""
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    weights[world.rank].grad = torch.full_like(weights[world.rank], world.rank + 1.0)
    world.sum_gradients(weights)
    summed = [weight.grad.flatten().tolist() for weight in weights if weight.grad is not None]
    world.check_same(weights)
    clipped = clip_gradients(weights, 1.0)
    differs = nn.Parameter(torch.tensor([1.0, world.rank * 1e-7]))
    try:
        world.check_same([differs])
        told = ""
    except ProcessesDiffer as problem:
        told = problem.code
    return {
        "groups": dist.get_world_size(),
        "gathered": world.gather(world.rank * 10),
        "from_main": world.broadcast("main" if world.is_main else "other"),
        "merged": world.merge([item * 2 for item in world.slice(range(5))]),
        "shares": world.gather(world.share([5, 3, 3, 1])),
        "most": world.most(world.rank + 4),
        "summed": summed,
        "norm": clipped,
        "told": told,
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    world = World.from_environment("cuda" if sys.argv[2] == "cuda" else "cpu")
    seen = world.gather(look(world))
    if world.is_main:
        (folder / "seen.json").write_text(json.dumps(seen))
    for task in json.loads((folder / "tasks.json").read_text()):
        try:
            run(task, world)
        except PassTooLarge as problem:
            (folder / TOO_LARGE).write_text(str(problem.tokens))
            raise
    world.close()


if __name__ == "__main__":
    main()
