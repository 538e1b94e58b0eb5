"""Whose turn it is at the devices of this machine.

The job that is next in the queue gets its devices, all or none. While they are taken it waits, and no job
behind it that wants a device of the same kind goes ahead: so that many small jobs cannot keep a large one
waiting for ever. Jobs that want none of that kind go ahead (docs/decisions/0057-who-gets-which-device.md).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from sqlalchemy import ColumnElement, false, not_, true

from app.db import unit_of_work
from app.devices import listing
from app.devices.claims import Claim, claims_of
from app.devices.listing import Device
from app.devices.needs import Kind, Need, need_of
from app.jobs import capacity, runs
from app.settings import get_settings

KINDS = {"gpu": "GPU", "cpu": "CPU seat"}


def next_with_devices() -> tuple[str, Claim] | None:
    """Returns the id of the job that is next, with its devices; None if none waits that can have them now.

    Whoever is given devices closes the claim.
    """
    settings = get_settings()
    devices, offered = listing.of_service(settings), capacity.of_this_machine(settings)
    claims = claims_of(settings)
    passed_over: ColumnElement[bool] = false()
    for _ in KINDS:
        with unit_of_work() as db:
            job = runs.next_for_training(db, offered, passed_over)
        if job is None:
            return None
        need = need_of(job.resources, devices)
        held = claims.take(need.candidates, need.number, f"job {job.id}")
        if isinstance(held, Claim):
            return job.id, held
        with unit_of_work() as db:
            runs.tell_of_devices(db, job.id, _waits(need, held))
        passed_over = _wants(need.kind, devices)
    return None


def tell_next() -> None:
    """Tells the job that is next if its devices are taken. Whoever trains does so: no worker may be idle."""
    settings = get_settings()
    if not (devices := listing.of_service(settings)):
        return
    claims = claims_of(settings)
    with unit_of_work() as db:
        job = runs.next_for_training(db, capacity.of_this_machine(settings), false())
        if job is None:
            return
        need = need_of(job.resources, devices)
        free = sum(claims.holder(device) is None for device in need.candidates)
        if free < need.number:
            runs.tell_of_devices(db, job.id, _waits(need, free))


def take_one(what: str) -> Claim | None:
    """Returns the device of a process that computes by itself, if there are any; None if all are taken."""
    settings = get_settings()
    need = need_of(None, listing.of_service(settings))
    held = claims_of(settings).take(need.candidates, need.number, what)
    return held if isinstance(held, Claim) else None


def _wants(kind: Kind, devices: Sequence[Device]) -> ColumnElement[bool]:
    """Selects the jobs that want a device of that kind, on a machine that has some."""
    if kind == "gpu":
        return runs.needs_gpu()
    return not_(runs.needs_gpu()) if any(device.kind != "cpu" for device in devices) else true()


def _waits(need: Need, free: int) -> str:
    name, total = KINDS[need.kind], len(need.candidates)
    wanted = f"{need.number} {name}{'s' if need.number > 1 else ''}"
    return (
        f"The job is next in the queue of {socket.gethostname()} and waits for {wanted} there: {free} of"
        f" {total} {'are' if total > 1 else 'is'} free. No job behind it that needs one goes ahead"
    )
