"""Says what a machine has for a training, and whether a job fits it. It loads no torch: the worker that
claims has none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.devices import listing
from app.devices.listing import DRIVER, PROGRAM
from app.devices.needs import most_gpus, most_processes
from app.settings import Settings


@dataclass(frozen=True)
class Capacity:
    """Most GPUs, and most CPU processes, that one training may have here."""

    gpus: int
    processes: int


def of_this_machine(settings: Settings) -> Capacity:
    """Returns what a worker on this machine can offer to one training, when nothing else runs there."""
    devices = listing.of_service(settings)
    return Capacity(most_gpus(devices), most_processes(devices, max_processes(settings)))


def max_gpus(settings: Settings) -> int | None:
    """Returns how many GPUs one job may ask for; None if a worker elsewhere may have any number."""
    if settings.max_gpus == "any":
        return None
    return of_this_machine(settings).gpus if settings.max_gpus == "auto" else settings.max_gpus


def max_processes(settings: Settings) -> int:
    """Returns how many CPU processes one training may have."""
    return settings.max_processes or cores()


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus(environment: Mapping[str, str], program: str = PROGRAM, driver: Path = DRIVER) -> int:
    """Returns how many NVIDIA GPUs a process with this environment sees: what CUDA_VISIBLE_DEVICES names,
    else all."""
    return len(listing.visible(environment, program, driver))
