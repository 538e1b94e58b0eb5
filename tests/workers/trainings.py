"""Trainings under way in real processes, as tests see and disturb them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from app.db import unit_of_work
from app.jobs.models import Job


def children() -> list[psutil.Process]:
    """Training processes of this test."""
    mine = psutil.Process().children(recursive=True)
    return [child for child in mine if "workers.jobs.run" in _command(child)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def training_pid() -> int | None:
    return next((child.pid for child in children()), None)


def reached(job_id: str, step: int) -> bool:
    with unit_of_work() as db:
        return db.get_one(Job, job_id).last_step >= step


@contextmanager
def while_training(then: Callable[[], None]) -> Iterator[None]:
    """Do something from a thread while the block trains in this one."""
    problems: list[BaseException] = []

    def act() -> None:
        try:
            then()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()
    if problems:
        raise problems[0]
