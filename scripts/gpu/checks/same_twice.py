"""`python -m scripts.gpu.checks.same_twice DEVICE FOLDER`: does `deterministic` give the same bits twice?

The built-in model is trained twice with each kind of weights. All that a run tells of its steps, and the
weights that it delivers, must be the same to the last bit.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from methods.model_files.precision import is_installed
from scripts.gpu.checks.short_runs import short_run
from tests.workers.training.support import ListRecorder
from workers.training.base.determinism import WORKSPACE

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"adapter": "full", "learning_rate": 5e-5},
    "nf4": {"base_precision": "nf4"},
}


def main(device: str, folder: Path) -> int:
    """Prints a line for each kind; returns 1 where two runs are not the same, else 0."""
    os.environ.update(WORKSPACE)  # before CUDA starts
    differ = False
    for kind, changes in KINDS.items():
        if kind == "nf4" and not is_installed():
            print("nf4: bitsandbytes is not there")
            continue
        first, second = (
            short_run(device, folder / f"{kind}{turn}", deterministic=True, **changes) for turn in (1, 2)
        )
        apart = differences(first, second)
        differ |= bool(apart)
        print(f"{kind}: {', '.join(apart) or 'the same to the last bit'}; weights {weights(first)[:16]}")
    return int(differ)


def differences(first: ListRecorder, second: ListRecorder) -> list[str]:
    """Returns in what two runs differ."""
    ours, theirs = first.history(), second.history()
    found = [
        f"{name} of step {step}"
        for step, values in ours.items()
        for name, value in values.items()
        if repr(theirs.get(step, {}).get(name)) != repr(value)
    ]
    return found if weights(first) == weights(second) else [*found, "the delivered weights"]


def weights(told: ListRecorder) -> str:
    """Returns the sha256 of the weights of a run's last checkpoint."""
    folder: Path = told.all("checkpoint")[-1][0].folder
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
