"""Preflights in real child processes: what they report, how they end, and whose turn it is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.ids import random_id
from app.preflights.models import Preflight
from tests.workers.rows import GRADER, SHORT, data_rows, make_file
from workers.jobs.validators import validate_all
from workers.preflights.attempt import FileChecks

RUNNING = threading.Event()


def make_preflight(
    db: Session,
    training: Any = None,
    validation: Any = None,
    *,
    grader: dict[str, Any] = GRADER,
    hyperparameters: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    **values: Any,
) -> Preflight:
    """A committed preflight that waits."""
    file = make_file(db, training if training is not None else data_rows())
    valid = make_file(db, validation, "valid.jsonl") if validation is not None else None
    block = {"grader": dict(grader), "hyperparameters": {**SHORT, **(hyperparameters or {})}}
    preflight = Preflight(
        id=random_id("ftpre-"),
        project_id=file.project_id,
        model=values.pop("model", "tiny"),
        training_file=file.id,
        validation_file=valid.id if valid else None,
        seed=7,
        method={"type": "reinforcement", "reinforcement": block},
        limits=limits or {},
        **values,
    )
    db.add(preflight)
    db.commit()
    return preflight


def carried_out(db: Session, preflight: Preflight) -> Preflight:
    assert validate_all("me", RUNNING, FileChecks()) >= 1
    db.rollback()
    db.refresh(preflight)
    return preflight


def codes(preflight: Preflight, severity: str | None = None) -> list[str]:
    assert preflight.report is not None
    found = preflight.report["findings"]
    return [one["code"] for one in found if severity in (None, one["severity"])]


def test_a_good_job_is_sampled_and_its_costs_are_told(db: Session, tiny_model: Path) -> None:
    done = carried_out(db, make_preflight(db, data_rows(8), data_rows(10)[8:]))
    import json

    print(json.dumps(done.report, indent=1), done.error)
    assert done.status == "succeeded"
