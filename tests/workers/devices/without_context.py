"""What test_no_context.py runs: work on the CPU where torch tells of a GPU, and starting CUDA raises.

`python -m tests.workers.devices.without_context WORK FOLDER`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import peft  # noqa: F401  # with bitsandbytes, which asks for more of torch where there seems to be a GPU
import torch

from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from tests.tiny_model import make_tiny_model
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.base.errors import RunCancelled


class ContextOpened(Exception):
    """CUDA would have been started."""


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise ContextOpened("this work has nothing to ask of CUDA")


FAKES = {"is_available": lambda: True, "device_count": lambda: 1, "_lazy_init": refuse}
"""What each module of torch.cuda has or has imported."""


def reinforcement(folder: Path) -> None:
    """Trains, saves and resumes."""
    from workers.training.loop import train

    sizes = {"prompts_per_step": 3, "group_size": 2, "save_state_every": 1, "deterministic": True}
    config: TrainConfig = make_config(folder / "model", n_epochs=2, device="cpu", **sizes)
    rows = make_rows("one", "two", "three"), make_rows("one")
    run = (config, *rows, FunctionGrader(early_letters), ListRecorder(), folder / "run")
    stops = iter([False, True])
    with suppress(RunCancelled):
        train(*run, lambda: next(stops))
    train(*run)


def supervised(folder: Path) -> None:
    from methods.tuning_rows import row_check
    from tests.workers.rows import chat_rows
    from workers.tuning.run import tune

    check = row_check("supervised")
    rows = [check(number, row) for number, row in enumerate(chat_rows(), 1)]
    shared: dict[str, Any] = {"model": "m", "model_path": str(folder / "model"), "seed": 1, "device": "cpu"}
    sizes = {"n_epochs": 1, "eval_interval": 6, "learning_rate": 1e-3, "batch_size": 2, "probe_tokens": 4}
    tune(TuneConfig(**shared, **sizes, method="supervised"), rows, rows[:2], ListRecorder(), folder / "tuned")


def facts(folder: Path) -> None:
    """What is asked of torch around a training."""
    from workers.inspect.torch import inspect
    from workers.jobs.provenance import place_facts
    from workers.training.base.device_memory import free_bytes, limit_share
    from workers.training.base.distributed import World

    config: TrainConfig = make_config(folder / "model", device="cpu")
    assert place_facts(config)["device"] == "cpu"
    assert inspect()["gpus"] == 1
    place = World().device("cpu")
    limit_share(place, 0.5)
    assert free_bytes(place) is None


WORK: dict[str, Callable[[Path], None]] = {
    "reinforcement": reinforcement,
    "supervised": supervised,
    "facts": facts,
}


def main() -> None:
    work, folder = sys.argv[1], Path(sys.argv[2])
    make_tiny_model(folder / "model")
    with ExitStack() as patches:
        for module in [module for name, module in sys.modules.items() if name.startswith("torch.cuda")]:
            for name, instead in FAKES.items():
                if hasattr(module, name):
                    patches.enter_context(patch.object(module, name, instead))
        try:
            torch.cuda.get_rng_state_all()
        except ContextOpened:
            WORK[work](folder)
            print("no context was opened")


if __name__ == "__main__":
    main()
