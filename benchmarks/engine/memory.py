"""Peak memory of one side, in a process of its own: allocators keep what they once had.

`python -m benchmarks.engine.memory ours|stock SETUP_AS_JSON` prints one line of JSON. Needs Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.engine.setup import Setup

ROOT = Path(__file__).resolve().parents[2]


class Peak(NamedTuple):
    """Bytes above the process with its libraries: `whole` with weights and optimizer, `training` without
    what was there before the first step. `cuda` is the most that torch held on the GPU."""

    whole: int
    training: int
    cuda: int


def measure(side: str, setup: Setup) -> Peak:
    """Run a few steps of one side in a child process: one more than it takes to have optimizer state."""
    steps = 1 if setup.adapter == "lora" else 2
    command = [
        sys.executable,
        "-m",
        "benchmarks.engine.memory",
        side,
        replace(setup, steps=steps).to_json(),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    found = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return Peak(**json.loads(found.stdout.splitlines()[-1]))


def resident_bytes(field: str) -> int:
    """`VmRSS`, or `VmHWM` for its highest value since the last `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: peak memory is measured on Linux alone")


def reset_peak() -> None:
    """Forget the highest resident size so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _run(side: str, setup: Setup) -> Peak:
    if side == "ours":
        from benchmarks.engine.ours import Ours
    else:
        from benchmarks.engine.stock import Stock
    reset_peak()
    libraries = resident_bytes("VmRSS")
    if side == "ours":
        with Ours(setup) as ours:
            building, before = resident_bytes("VmHWM"), _start_of_training()
            for step in range(setup.steps):
                ours.step(step)
    else:
        stock = Stock(setup)
        building, before = resident_bytes("VmHWM"), _start_of_training()
        stock.train(lambda *_: None)
    peak = resident_bytes("VmHWM")
    cuda = torch.cuda.max_memory_allocated() if setup.device == "cuda" else 0
    return Peak(max(building, peak) - libraries, peak - before, cuda)


def _start_of_training() -> int:
    reset_peak()
    return resident_bytes("VmRSS")


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], Setup.from_json(sys.argv[2]))._asdict()))
