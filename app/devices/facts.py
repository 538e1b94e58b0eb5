"""What the driver knows of GPUs beside their names: memory, its own version, the CUDA that it can run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.devices.claims import Claims
from app.devices.listing import ASK_SECONDS, DRIVER, PROGRAM, Device, unseen, visible

QUERY = ("--query-gpu=uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
CUDA = re.compile(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)")
FIELDS = 4


class GpuFacts(NamedTuple):
    """Is what the driver tells of a GPU; `memory_bytes` is all that it has, for others too."""

    name: str
    memory_bytes: int
    driver: str


def of_gpus(environment: Mapping[str, str] = os.environ, program: str = PROGRAM) -> list[GpuFacts]:
    """Returns what the driver tells of the GPUs that a process with this environment sees.

    It opens no CUDA context. A MIG slice is not told of, and where there is no `nvidia-smi`, nothing is.
    """
    told = _told(program)
    return [told[device.name] for device in visible(environment, program) if device.name in told]


def _told(program: str = PROGRAM) -> dict[str, GpuFacts]:
    found = {}
    for line in _ask(program, *QUERY).splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == FIELDS and parts[2].isdigit():
            found[parts[0]] = GpuFacts(parts[1], int(parts[2]) << 20, parts[3])
    return found


def newest_cuda(program: str = PROGRAM) -> tuple[int, int] | None:
    """Returns the newest version of CUDA that the driver can run; None where that is not known."""
    found = CUDA.search(_ask(program))
    return (int(found[1]), int(found[2])) if found else None


def _ask(program: str, *options: str) -> str:
    try:
        told = subprocess.run([program, *options], capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout


def describe(devices: Sequence[Device], claims: Claims, own: Device | None = None) -> list[str]:
    """Returns a line for each device: what it is, who has it, and what a sampler takes of it.

    `own` is a GPU that the sampler has for itself.
    """
    told = _told() if any(device.kind != "cpu" for device in devices) or own else {}
    lines = [_line(device, told, claims) for device in devices]
    if own and own.name not in {device.name for device in devices}:
        lines.append(f"{_named(own, told)}: the sampler's own")
    return lines


def _line(device: Device, told: Mapping[str, GpuFacts], claims: Claims) -> str:
    holder = claims.holder(device)
    state = (
        f"taken by {holder.what} (process {holder.pid}) since {holder.since}"
        if holder is not None
        else "free"
    )
    share = claims.sampler_share([device.name])
    sampler = f", of whose memory the sampler takes up to {share:.0%}" if share else ""
    return f"{_named(device, told)}: {state}{sampler}"


def _named(device: Device, told: Mapping[str, GpuFacts]) -> str:
    facts = told.get(device.name)
    number = f"GPU {device.number} " if device.number is not None else ""
    memory = f", {facts.memory_bytes / 2**30:.0f} GiB, driver {facts.driver}" if facts else ""
    label = f" ({device.label}{memory})" if device.label or memory else ""
    return f"{number}{device.name}{label}"


def why_unseen(devices: Sequence[Device]) -> str | None:
    """Says that GPUs are named of which the driver tells nothing; None if there are no such ones."""
    names = unseen(devices)
    if not names:
        return None
    named = f"GPUs {', '.join(names)} are" if len(names) > 1 else f"GPU {names[0]} is"
    return (
        f"{named} to be used, but this machine shows no GPU ({PROGRAM} and {DRIVER}): if it has none,"
        " trainings there run on the CPU"
    )


def torch_fault(built_for: str | None, finds: int, gpus: int, newest: tuple[int, int] | None) -> str | None:
    """Says why torch cannot use the GPUs of a machine; None if it can, or has none.

    Args:
        built_for: the version of CUDA that torch was built for; None for the CPU only.
        finds: GPUs that torch finds.
        gpus: GPUs that the driver has.
        newest: the newest version of CUDA that the driver can run; None where that is not known.
    """
    if not gpus:
        return None
    if built_for is None:
        return f"the driver has {gpus} GPUs, but this torch is built for the CPU only"
    if newest is not None and int(built_for.split(".")[0]) > newest[0]:
        able = f"{newest[0]}.{newest[1]}"
        return f"torch is built for CUDA {built_for}, and the driver runs {able} at most"
    if finds < gpus:
        return f"the driver has {gpus} GPUs, and torch finds {finds}"
    return None
