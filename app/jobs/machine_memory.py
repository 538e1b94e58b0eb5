"""Says how much memory a training has where it runs, without loading torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from app.devices.listing import ASK_SECONDS
from app.settings import Settings

MEMORY = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own limits (cgroup v2)."""
QUERY = ("--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")


class Memory(NamedTuple):
    """Holds bytes of a machine, or of the smallest of its GPUs; `free` is what nothing uses now."""

    total: int
    free: int


def of_training(settings: Settings, *, on_gpu: bool) -> Memory | None:
    """Returns what a training has; None where that is not known, as on a machine that only checks files."""
    said = settings.training_memory_gib
    if said == "unknown":
        return None
    if said != "auto":
        return Memory(int(said * 2**30), int(said * 2**30))
    return of_gpus(os.environ) if on_gpu else of_machine()


def of_machine(meminfo: Path = MEMORY, group: Path = GROUP) -> Memory | None:
    """Returns the memory of this machine, or of the container that this process is in."""
    try:
        said = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        total, free = (int(said[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    limit, used = (_number(group / name) for name in ("memory.max", "memory.current"))
    if limit is None or limit >= total:
        return Memory(total, free)
    return Memory(limit, min(free, max(0, limit - (used or 0))))


def of_gpus(environment: Mapping[str, str], program: str = "nvidia-smi") -> Memory | None:
    """Returns the memory of the smallest GPU that a process with this environment sees; None without one."""
    try:
        told = subprocess.run(
            [program, *_chosen(environment), *QUERY], capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = [Memory(*(int(part) << 20 for part in line.split(","))) for line in _rows(told.stdout)]
    return min(found, default=None)


def _chosen(environment: Mapping[str, str]) -> list[str]:
    chosen = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
    return ["-i", chosen] if chosen else []


def _rows(output: str) -> Iterator[str]:
    """Yields the lines of numbers; a GPU that tells none has no line."""
    for line in output.splitlines():
        if all(part.strip().isdigit() for part in line.split(",")) and line.count(",") == 1:
            yield line


def _number(path: Path) -> int | None:
    """Returns what a file of the kernel says; None for "max", and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
