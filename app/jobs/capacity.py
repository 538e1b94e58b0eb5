"""Says what a machine has for a training, and whether a job fits it. It loads no torch: the worker that
claims has none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings

DRIVER = Path("/proc/driver/nvidia/gpus")
ASK_SECONDS = 30.0


@dataclass(frozen=True)
class Capacity:
    """Most GPUs, and most CPU processes, that one training may have here."""

    gpus: int
    processes: int


def of_this_machine(settings: Settings) -> Capacity:
    """Returns what a worker on this machine can offer."""
    gpus = count_gpus(os.environ) if settings.gpus == "auto" else settings.gpus
    return Capacity(gpus, max_processes(settings))


def max_processes(settings: Settings) -> int:
    """Returns how many CPU processes one training may have."""
    return settings.max_processes or cores()


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus(environment: Mapping[str, str], program: str = "nvidia-smi", driver: Path = DRIVER) -> int:
    """Returns how many NVIDIA GPUs a process with this environment sees: what CUDA_VISIBLE_DEVICES names,
    else all."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return _count_chosen(chosen)
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=ASK_SECONDS)
        return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    except (OSError, subprocess.TimeoutExpired):  # the driver may be there without its tools
        return len(list(driver.iterdir())) if driver.is_dir() else 0


def _count_chosen(chosen: str) -> int:
    """Counts by CUDA's rule: devices up to the first entry that names none."""
    count = 0
    for entry in chosen.split(","):
        if not entry.strip() or entry.strip().startswith("-") or entry.strip() == "NoDevFiles":
            break
        count += 1
    return count
