"""Weights & Biases as a side listener: offline for real, and what is said where it cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

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
from workers.jobs.integrations import WandbListener, shown_elsewhere
from workers.training.recorders import FanOut

WANDB = [{"type": "wandb", "wandb": {"project": "mine", "tags": ["a"]}}]


def claim(db: Session, **values: object) -> Claim:
    make_job(db, status="queued", **values)
    with unit_of_work() as other:
        held = runs.claim_for_training(other, "me", get_settings().lease, Capacity(gpus=0, processes=1))
    assert held
    return held


def warnings(db: Session) -> list[str]:
    db.rollback()
    return list(db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")))


def test_a_job_without_integrations_tells_the_database_alone(db: Session) -> None:
    held = claim(db)
    recorder = DatabaseRecorder(held, get_storage())
    with shown_elsewhere(recorder, held) as telling:
        assert telling is recorder


@pytest.mark.parametrize("is_installed", [False, True], ids=["no package", "no key"])
def test_what_is_missing_is_said_once_and_stops_nothing(
    db: Session, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    if is_installed:
        pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    else:
        monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    held = claim(db, integrations=WANDB)
    recorder = DatabaseRecorder(held, get_storage())
    for _ in range(2):
        with shown_elsewhere(recorder, held) as telling:
            telling.metrics(1, 1, {"reward/mean": 0.5})
    (told,) = warnings(db)
    assert told.startswith("The job is not shown at Weights & Biases: ")
    assert ("WANDB_API_KEY" in told) == is_installed


def test_an_offline_run_is_a_folder_with_the_numbers(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    held = claim(db, integrations=WANDB)
    with shown_elsewhere(DatabaseRecorder(held, get_storage()), held) as telling:
        assert isinstance(telling, FanOut)
        (listener,) = telling._listeners
        assert isinstance(listener, WandbListener)
        telling.metrics(1, 1, {"reward/mean": 0.5})
        folder: Path = listener.folder
    assert warnings(db) == []
    assert folder.is_relative_to(get_settings().data_dir.absolute())
    (written,) = folder.glob("run-*.wandb")
    assert b"reward/mean" in written.read_bytes()
