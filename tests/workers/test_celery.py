"""Real Celery workers on a real broker: they die, the broker forgets, messages come twice; jobs end well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import process, queue
from app.db import unit_of_work
from app.embedded.valkey import Valkey, server_binary
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import Job
from app.settings import get_settings
from tests.e2e.service import wait_for
from tests.workers.rows import data_rows, fresh, make_job

pytestmark = pytest.mark.slow

WORKER_STOPS_WITHIN = 30.0


@pytest.fixture
def valkey(settings: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A broker of the test's own, and settings that make faults short."""
    binary = server_binary()
    if binary is None:
        pytest.skip("no Valkey or Redis here")
    server = Valkey(tmp_path / "valkey", binary)
    server.start()
    monkeypatch.setenv("CHERRY_BROKER_URL", server.url)
    monkeypatch.setenv("CHERRY_LEASE", "PT4S")
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
    get_settings.cache_clear()
    queue.get_celery.cache_clear()
    yield server
    queue.get_celery().close()
    server.stop()


class Workers:
    """Worker processes of a test, all gone at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, kind: queue.Queue) -> subprocess.Popen[bytes]:
        with (self._folder / f"{kind}.log").open("ab") as output:
            worker = process.spawn(queue.worker_command(kind), env=dict(os.environ), output=output)
        self.started.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.started:
            process.stop(worker, grace=0)

    def trainings(self) -> list[psutil.Process]:
        found = []
        for worker in self.started:
            if process.is_alive(worker.pid):
                found += psutil.Process(worker.pid).children(recursive=True)
        return [each for each in found if "workers.jobs.run" in " ".join(each.cmdline())]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    started = Workers(tmp_path)
    yield started
    started.stop()
    for log in tmp_path.glob("*.log"):
        sys.stdout.write(log.read_text()[-5000:])  # pytest shows it if the test failed


def row(job_id: str) -> Job:
    with unit_of_work() as db:
        return db.get_one(Job, job_id)


@pytest.mark.long
def test_jobs_survive_dead_workers_and_an_empty_broker(
    db: Session, valkey: Valkey, workers: Workers, tiny_model: Path
) -> None:
    for _ in range(2):
        workers.start("train")
    workers.start("validate")
    job = make_job(db, validation=data_rows(2), hyperparameters={"n_epochs": 12, "eval_interval": 4})
    # Nobody sends a message: the waker finds the row.
    wait_for(lambda: row(job.id).last_step >= 3, what="step 3")
    for _ in range(5):  # messages that come again and again find nothing to do
        queue.publish("train")
        queue.publish("validate")
    owner = int(str(row(job.id).lease_owner).split(":")[1])
    children = psutil.Process(owner).children(recursive=True)
    before = row(job.id).attempt
    assert len(workers.trainings()) == 1
    os.kill(owner, signal.SIGKILL)
    with redis.Redis(unix_socket_path=valkey.url.removeprefix("redis+socket://")) as client:
        client.flushall()
    wait_for(lambda: not any(process.is_alive(child.pid) for child in children), seconds=5)
    wait_for(lambda: row(job.id).status == "succeeded", what="the end")
    assert fresh(db, job).attempt == before + 1
    steps = db.scalars(select(JobMetrics.step).order_by(JobMetrics.step)).all()
    assert list(steps) == list(range(25))
    told = db.scalars(select(JobEvent.key).order_by(JobEvent.seq)).all()
    assert len(told) == len(set(told))
    numbers = db.scalars(select(JobEvent.seq).order_by(JobEvent.seq)).all()
    assert list(numbers) == list(range(1, len(numbers) + 1))


@pytest.mark.long
def test_a_stopped_worker_leaves_at_once_and_the_next_goes_on(
    db: Session, valkey: Valkey, workers: Workers, tiny_model: Path
) -> None:
    job = make_job(db, hyperparameters={"n_epochs": 50, "batch_size": 1})
    first = workers.start("train")
    workers.start("validate")
    wait_for(lambda: row(job.id).last_step >= 2, what="step 2")
    children = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGTERM)
    assert first.wait(WORKER_STOPS_WITHIN) == 0
    assert not any(process.is_alive(child.pid) for child in children)
    stopped = row(job.id)
    assert (stopped.status, stopped.fruitless_attempts) == ("queued", 0)
    workers.start("train")
    wait_for(lambda: row(job.id).status == "running", what="the next attempt")


def test_files_can_carry_the_wake_ups_too(
    db: Session, workers: Workers, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_settings().broker_url.startswith("filesystem://")
    workers.start("validate")
    job = make_job(db)
    wait_for(lambda: row(job.id).status == "queued", what="validation")


@pytest.fixture
def no_broker(settings: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CHERRY_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")
    get_settings.cache_clear()
    queue.get_celery.cache_clear()
    yield
    queue.get_celery().close()


@pytest.mark.usefixtures("no_broker")
def test_a_broker_that_is_away_is_no_error_for_the_sender(db: Session) -> None:
    with unit_of_work() as other:
        queue.wake_trainer(other)


@pytest.mark.long
@pytest.mark.usefixtures("no_broker")
def test_a_worker_that_starts_without_its_broker_works(
    db: Session, workers: Workers, tiny_model: Path
) -> None:
    worker = workers.start("validate")
    job = make_job(db)
    wait_for(lambda: row(job.id).status == "queued", what="validation")
    worker.send_signal(signal.SIGTERM)
    worker.wait(WORKER_STOPS_WITHIN)
