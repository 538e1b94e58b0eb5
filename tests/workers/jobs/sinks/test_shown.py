"""Integrations of a job: with their real packages, into local files, and what is said where one cannot be."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.events.models import JobEvent
from app.jobs import runs
from app.jobs.capacity import Capacity
from app.jobs.status import Claim
from app.settings import get_settings
from app.storage import get_storage
from tests.workers.rows import make_job
from workers.jobs.db_recorder import DatabaseRecorder
from workers.jobs.sinks.shown import shown_elsewhere
from workers.training.recorders import Silent

WANDB = {"type": "wandb", "wandb": {"project": "mine", "tags": ["a"]}}
TENSORBOARD = {"type": "tensorboard"}
MLFLOW = {"type": "mlflow", "mlflow": {"experiment": "people", "name": "first"}}
TRACKIO = {"type": "trackio", "trackio": {"project": "people"}}
PLACES = ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR")


@pytest.fixture(autouse=True)
def _no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)


def claim(db: Session, **values: Any) -> Claim:
    make_job(db, status="queued", **values)
    with unit_of_work() as other:
        held = runs.claim_for_training(other, "me", get_settings().lease, Capacity(gpus=0, processes=1))
    assert held
    return held


def warnings(db: Session) -> list[str]:
    db.rollback()
    return list(db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")))


def attempt(held: Claim, *steps: int) -> None:
    """Tells steps as one attempt of a run does; a step's numbers are the same each time."""
    with shown_elsewhere(Silent(), held) as telling:
        for step in steps:
            telling.metrics(step, 1, {"reward/mean": step / 4, "a tool? [1]": 1.0, "note": "no number"})


def test_a_job_without_integrations_tells_the_database_alone(db: Session) -> None:
    held = claim(db)
    recorder = DatabaseRecorder(held, get_storage())
    with shown_elsewhere(recorder, held) as telling:
        assert telling is recorder


def test_what_is_missing_is_said_once_and_stops_nothing(db: Session) -> None:
    held = claim(db, integrations=[WANDB])
    for _ in range(2):
        attempt(held, 1)
    (told,) = warnings(db)
    assert told.startswith("The job is not shown at Weights & Biases: the worker has neither WANDB_API_KEY")


def test_tensorboard_has_each_step_once_after_a_resume(db: Session) -> None:
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = claim(db, integrations=[TENSORBOARD])
    attempt(held, 0, 1, 2, 3)
    attempt(held, 2, 3, 4)
    assert warnings(db) == []
    folder = get_settings().data_dir / "tensorboard" / held.job_id
    read = EventAccumulator(str(folder)).Reload()
    assert [(one.step, one.value) for one in read.Scalars("reward/mean")] == [
        (step, step / 4) for step in range(5)
    ]
    assert "note" not in read.Tags()["scalars"]


@pytest.mark.long
def test_mlflow_has_each_step_once_after_a_resume(
    db: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the optional package mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    held = claim(db, integrations=[MLFLOW])
    attempt(held, 0, 1, 2, 3)
    attempt(held, 2, 3, 4)
    assert warnings(db) == []
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        (run,) = store.execute("SELECT name, status FROM runs").fetchall()
        found = store.execute("SELECT step, value FROM metrics WHERE key = 'reward/mean' ORDER BY step")
        assert found.fetchall() == [(step, step / 4) for step in range(5)]
    assert run == (f"first {held.job_id}", "FINISHED")


@pytest.mark.long
def test_trackio_has_each_step_once_after_a_resume(
    db: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="the optional package trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    held = claim(db, integrations=[TRACKIO])
    attempt(held, 0, 1, 2, 3)
    attempt(held, 2, 3, 4)
    assert warnings(db) == []
    with sqlite3.connect(tmp_path / "people.db") as store:
        found = store.execute(
            "SELECT run_name, step, json_extract(metrics, '$.\"reward/mean\"') FROM metrics ORDER BY step"
        )
        assert found.fetchall() == [(held.job_id, step, step / 4) for step in range(5)]


@pytest.mark.long
def test_an_offline_run_of_wandb_is_a_folder_with_the_numbers(
    db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    held = claim(db, integrations=[WANDB])
    attempt(held, 0, 1)
    assert warnings(db) == []
    (written,) = (get_settings().data_dir / "wandb").rglob("run-*.wandb")
    assert b"reward/mean" in written.read_bytes()


@pytest.mark.long
def test_a_server_that_is_away_is_one_event_and_the_missing_steps_another(
    db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the optional package mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    held = claim(db, integrations=[MLFLOW])
    before = os.times().elapsed
    with shown_elsewhere(Silent(), held) as telling:
        for step in range(3):
            telling.metrics(step, 1, {"reward/mean": 0.5})
        while not warnings(db):
            assert os.times().elapsed - before < 60
    failing, missing = warnings(db)
    assert failing.startswith("MLflow does not take the job's numbers")
    assert missing == "Of 3 steps of this attempt 3 are missing at MLflow."
