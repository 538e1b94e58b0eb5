"""Says what this service has for trainings: workers, devices of this machine, and room on disk."""

from __future__ import annotations

import shutil
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.devices import listing
from app.devices.claims import DevicesUnusable, claims_of
from app.devices.listing import DeviceUnknown
from app.jobs.models import Job
from app.settings import Settings


class Seat(NamedTuple):
    """A device of this machine. Whose training has it is not told: it may be another project's."""

    name: str
    is_free: bool


class Machine(NamedTuple):
    """What there is.

    Attributes:
        workers: workers, of any machine, that hold a job by now.
        seats: GPUs, or seats on the CPU, of the machine that serves this page.
        problem: why the devices are not known.
        free_bytes, total_bytes: of the disk where the service keeps its files.
    """

    workers: int
    seats: list[Seat]
    problem: str
    free_bytes: int
    total_bytes: int


def machine(db: Session, settings: Settings) -> Machine:
    """Returns what there is at this moment."""
    held = select(func.count(func.distinct(Job.lease_owner))).where(Job.lease_expires_at > func.now())
    seats, problem = [], ""
    try:
        claims = claims_of(settings)
        found = listing.of_service(settings)
        seats = [Seat(f"{each.label} {each.name}".strip(), claims.holder(each) is None) for each in found]
    except (DeviceUnknown, DevicesUnusable) as fault:
        problem = str(fault)
    folder = settings.data_dir.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    disk = shutil.disk_usage(there)
    return Machine(db.scalars(held).one(), seats, problem, disk.free, disk.total)
