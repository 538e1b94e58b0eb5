"""Preflights as the work of workers. The files wait among the validations of jobs, costly samples among the
trainings; projects take turns over both.
"""

from __future__ import annotations

import resource
import threading

from app.db import unit_of_work
from app.jobs import capacity
from app.jobs import runs as job_runs
from app.jobs.capacity import Capacity
from app.preflights import runs
from app.settings import get_settings
from workers.devices import turns
from workers.jobs.attempt import train_next as train_next_job
from workers.leased import LeasedWork

CHECK = "workers.preflights.check:check_claimed"
NAMES = ("preflight", "the preflight")

FILE_CHECKS = LeasedWork(runs.FILES, CHECK, *NAMES, further={"stage": "files"})
"""The part that reads files, and samples where that costs little."""
SAMPLES = LeasedWork(runs.SAMPLES, CHECK, *NAMES, further={"stage": "samples"})


def train_or_sample_next(owner: str, stopping: threading.Event) -> bool:
    """Works on the next job, or on the next preflight whose samples are costly; False if neither waits.

    A project's own preflights go before its jobs: they take minutes.
    """
    offered = capacity.of_this_machine(get_settings())
    with unit_of_work() as db:
        sample = runs.SAMPLES.place(db, (), *runs.fits(offered))
        job = job_runs.place_in_queue(db, "train", offered) if sample else None
    is_samples_turn = sample is not None and (job is None or sample[:2] <= job[:2])
    if is_samples_turn and sample_next(owner, stopping, offered):
        return True
    if train_next_job(owner, stopping):
        return True
    # A job that is next and waits for its devices is not overtaken by samples that need one too.
    return sample is not None and job is None and sample_next(owner, stopping, offered)


def sample_next(owner: str, stopping: threading.Event, offered: Capacity) -> bool:
    """Works on the next preflight that waits for its samples; False if none waits, or no device is free.

    A worker that trains gives a training all there is, and its samples too.
    """
    held = turns.take_one("preflight")
    if held is None:
        return False
    try:
        environment = held.environment() if held.devices else {}
        also, most = runs.fits(offered), resource.RLIM_INFINITY
        return SAMPLES.do_next(owner, stopping, *also, memory=most, environment=environment)
    finally:
        held.close()
