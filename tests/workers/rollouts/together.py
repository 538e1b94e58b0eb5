"""What processes of one run do: `torchrun ... -m tests.workers.rollouts.together FOLDER`.

FOLDER/task.json has the server, the run's name, the texts and the config; what came of it goes to
FOLDER/told.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.table_settings import VllmEntry
from methods.train_config import TrainConfig
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_rows
from workers.rollouts.backend import Limits, VllmRollouts
from workers.training.base.distributed import World
from workers.training.loop import train

ROOT = Path(__file__).parents[3]


def opened(entry: VllmEntry, name: str, *of_run: Any, away: float = 600.0) -> VllmRollouts:
    """The rollouts of a run of a job: its arm is in its name."""
    *place, arm = of_run
    return VllmRollouts(entry, "-".join(filter(None, (name, arm))), *place, Limits(away, 0.1))


def names_of(recorder: ListRecorder) -> dict[int, list[str]]:
    """The weights that each step was sampled by."""
    return {
        step: sorted({one.sampled_by for group in groups for one in group.completions})
        for split, step, _, groups in recorder.all("rollouts")
        if split == "train"
    }


def together(folder: Path, entry: VllmEntry, config: TrainConfig, texts: list[str]) -> dict[str, Any]:
    """Trains in two processes, and returns what the main one was told."""
    folder.mkdir()
    key = entry.key and entry.key.get_secret_value()
    served = entry.model_dump(mode="json") | {"key": key}
    task = {"entry": served, "config": config.model_dump(mode="json"), "texts": texts}
    (folder / "task.json").write_text(json.dumps(task))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command = [*launcher, "--nproc-per-node", "2", "-m", "tests.workers.rollouts.together", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-6000:]
    found: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return found


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    world, recorder = World.from_environment("cpu"), ListRecorder()
    entry, config = VllmEntry(**task["entry"]), TrainConfig(**task["config"])
    of_run = (config, make_rows(*task["texts"]), [], FunctionGrader(early_letters), recorder)
    train(*of_run, folder / "run", world=world, rollouts=partial(opened, entry, "run-together"))
    if world.is_main:
        told = {"names": names_of(recorder), "history": recorder.history()}
        (folder / "told.json").write_text(json.dumps(told))
    world.close()


if __name__ == "__main__":
    main()
