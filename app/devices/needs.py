"""Says which devices a job may have, and how many of them it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from app.devices.listing import Device

Kind = Literal["gpu", "cpu"]


class Need(NamedTuple):
    """Any `number` of the candidates will do; 0 where the job needs none that is counted."""

    candidates: tuple[Device, ...]
    number: int

    @property
    def kind(self) -> Kind:
        """What it waits for."""
        return "cpu" if all(device.kind == "cpu" for device in self.candidates) else "gpu"


def need_of(resources: Mapping[str, int] | None, devices: Sequence[Device]) -> Need:
    """Returns what a job with these `resources` needs of the devices of a machine.

    A job without any has one GPU, or where there is none one seat, or where there are none either nothing
    that is counted. Several processes of one job need whole GPUs: CUDA shows a process one MIG slice.
    """
    asked = resources or {}
    seats = tuple(device for device in devices if device.kind == "cpu")
    gpus = tuple(device for device in devices if device.kind != "cpu")
    if "processes" in asked:
        return Need(seats, asked["processes"] if seats else 0)
    if asked.get("gpus", 1) > 1:
        return Need(tuple(device for device in gpus if device.kind == "gpu"), asked["gpus"])
    if gpus or "gpus" in asked:
        return Need(gpus, 1)
    return Need(seats, 1 if seats else 0)


def most_gpus(devices: Sequence[Device]) -> int:
    """Returns how many GPUs one job may have: all whole ones, or one slice."""
    whole = sum(device.kind == "gpu" for device in devices)
    return whole or int(any(device.kind == "mig" for device in devices))


def most_processes(devices: Sequence[Device], otherwise: int) -> int:
    """Returns how many CPU processes one job may have: the seats where there are some."""
    seats = sum(device.kind == "cpu" for device in devices)
    return min(seats, otherwise) if seats else otherwise
