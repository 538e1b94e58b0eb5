"""Says which devices the trainings of a machine may have, without loading torch or opening a CUDA context.

`nvidia-smi -L` is asked, in a process of its own: it knows MIG slices too, and no library of the driver is
then open in a worker or supervisor. Where the program is missing, the driver's folder in /proc is read.
Devices are named by UUID, which means the same in every process, whatever order CUDA counts them in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import structlog

from app.settings import Settings

log = structlog.get_logger(__name__)

DRIVER = Path("/proc/driver/nvidia/gpus")
PROGRAM = "nvidia-smi"
ASK_SECONDS = 30.0
GPU = re.compile(r"GPU (\d+): (.*?)(?: \(UUID: (\S+)\))?$")
MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)$")
VISIBLE = "CUDA_VISIBLE_DEVICES"


class Device(NamedTuple):
    """Is one place where one process of a training computes.

    Attributes:
        name: what CUDA_VISIBLE_DEVICES calls a GPU; `cpu:0` for a seat on the CPU.
        kind: a whole GPU, a slice of one, or a seat on the CPU.
        label: what the driver calls it, such as "NVIDIA H200"; "" where that is not known.
        number: the GPU's number in `nvidia-smi`; None where that is not known.
    """

    name: str
    kind: Literal["gpu", "mig", "cpu"]
    label: str = ""
    number: int | None = None


class DeviceUnknown(ValueError):
    """CHERRY_DEVICES names a device that this machine has not; the text says which there are."""


def of_service(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[Device, ...]:
    """Returns the devices of this machine that trainings may have.

    Those are what CHERRY_DEVICES names, else what CUDA_VISIBLE_DEVICES names, else all GPUs; of these as many
    as CHERRY_GPUS says. A GPU that the sampler has for itself is not among them. Raises `DeviceUnknown` if
    CHERRY_DEVICES names one that is not there.
    """
    known = of_driver()
    if settings.devices:
        found = _given(settings.devices, known)
    elif (chosen := environment.get(VISIBLE)) is not None:
        found = _named(chosen.split(","), known)
    else:
        found = known
    if settings.sampler_gpu:
        own = _find(settings.sampler_gpu, known)
        found = tuple(device for device in found if own is None or device.name != own.name)
    return found if settings.gpus == "auto" else _so_many(found, settings.gpus)


def unseen(devices: Sequence[Device]) -> list[str]:
    """Returns the names of those GPUs that are taken at their word, because the driver tells of none."""
    return [] if of_driver() else [device.name for device in devices if device.kind != "cpu"]


def of_driver(program: str = PROGRAM, driver: Path = DRIVER) -> tuple[Device, ...]:
    """Returns every GPU of this machine; for one that is cut into MIG slices, those. It asks only once."""
    return _of_driver(shutil.which(program), driver)


def visible(
    environment: Mapping[str, str], program: str = PROGRAM, driver: Path = DRIVER
) -> tuple[Device, ...]:
    """Returns the GPUs that a process with this environment sees: by CUDA_VISIBLE_DEVICES, else all."""
    known, chosen = of_driver(program, driver), environment.get(VISIBLE)
    return known if chosen is None else _named(chosen.split(","), known)


def sampler_device(settings: Settings, environment: Mapping[str, str] = os.environ) -> Device | None:
    """Returns the GPU of a sampler on this machine; None where it computes on the CPU, or none is known.

    Without a GPU of its own it shares the last one, which trainings take last.
    """
    if settings.sampler_device == "cpu":
        return None
    if settings.sampler_gpu:
        return _find(settings.sampler_gpu, of_driver())
    gpus = [device for device in of_service(settings, environment) if device.kind != "cpu"]
    return gpus[-1] if gpus else None


@lru_cache
def _of_driver(program: str | None, driver: Path) -> tuple[Device, ...]:
    if program is not None:
        try:
            listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=ASK_SECONDS)
            return tuple(_listed(listed.stdout))
        except (OSError, subprocess.TimeoutExpired) as problem:
            log.warning("driver_not_asked", program=program, problem=str(problem))
    return tuple(_in_proc(driver)) if driver.is_dir() else ()


def _listed(output: str) -> Iterator[Device]:
    """Reads the lines of `nvidia-smi -L`. A GPU with slices below it is of no use as a whole."""
    whole: Device | None = None
    for line in output.splitlines():
        if found := GPU.match(line.rstrip()):
            if whole:
                yield whole
            number, label, uuid = found.groups()
            whole, last = Device(uuid or number, "gpu", label, int(number)), (int(number), label)
        elif found := MIG.match(line.rstrip()):
            whole = None
            yield Device(found[2], "mig", f"{last[1]} MIG {found[1]}", last[0])
    if whole:
        yield whole


def _in_proc(driver: Path) -> Iterator[Device]:
    for number, folder in enumerate(sorted(driver.iterdir())):
        try:
            lines = (folder / "information").read_text().splitlines()
        except OSError:
            lines = []
        said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        yield Device(said.get("GPU UUID", str(number)), "gpu", said.get("Model", ""), number)


def _named(entries: Sequence[str], known: Sequence[Device]) -> tuple[Device, ...]:
    """Reads names by CUDA's rule: up to the first that names none."""
    found: dict[str, Device] = {}
    for number, entry in enumerate(map(str.strip, entries)):
        if not entry or entry.startswith("-") or entry == "NoDevFiles":
            break
        device = _find(entry, known, number)
        if device is None:
            log.warning("device_not_there", device=entry)
            break
        found[device.name] = device
    return tuple(found.values())


def _given(entries: Sequence[str], known: Sequence[Device]) -> tuple[Device, ...]:
    """Reads names that an operator gave for this machine, so that each must be there."""
    found: dict[str, Device] = {}
    for number, entry in enumerate(entries):
        device = _find(entry, known, number)
        if device is None:
            there = ", ".join(f"{device.number} ({device.name})" for device in known)
            raise DeviceUnknown(
                f"CHERRY_DEVICES names '{entry}', which is not there. The driver has {there}."
            )
        found[device.name] = device
    return tuple(found.values())


def _find(entry: str, known: Sequence[Device], place: int = 0) -> Device | None:
    """Returns the device of that number, UUID or beginning of a UUID.

    A name is taken at its word where the driver tells nothing of what there is.
    """
    if entry.startswith("cpu"):
        return Device(entry if ":" in entry else f"cpu:{place}", "cpu")
    if not known or entry.startswith("MIG-GPU-"):  # the second is how older drivers name slices
        return Device(entry, "mig" if entry.startswith("MIG-") else "gpu")
    for device in known:
        if device.name.startswith(entry) or (entry.isdigit() and device.number == int(entry)):
            return device
    return None


def _so_many(found: tuple[Device, ...], count: int) -> tuple[Device, ...]:
    """Returns so many GPUs, and the seats. An operator who says more than were found knows better."""
    gpus = [device for device in found if device.kind != "cpu"][:count]
    names = {device.name for device in gpus}
    spare = (str(number) for number in range(count + len(gpus)) if str(number) not in names)
    gpus += [Device(next(spare), "gpu") for _ in range(count - len(gpus))]
    return (*gpus, *(device for device in found if device.kind == "cpu"))
