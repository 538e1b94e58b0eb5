"""Jobs whose rows bring a rubric or name a verifier: taken as published, or refused with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobMetrics
from tests.app.grading.judge_servers import said
from tests.app.grading.test_rubrics import criteria_in
from tests.app.webhooks.receivers import Received
from tests.methods.test_rlvr_import import GSM8K, IFEVAL, SYSTEM
from tests.methods.test_rlvr_import import USER as ASKED
from tests.workers.jobs.test_judged_jobs import RUNNING, judge
from tests.workers.rows import fresh, make_job
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

USER = {"role": "user", "content": "Write a letter."}
RUBRICS = [
    {"criterion": "Is kind.", "points": 5, "tags": ["axis:tone"]},
    {"criterion": "Is short.", "points": 3, "tags": ["axis:form"]},
    {"criterion": "Is rude.", "points": -4, "tags": ["axis:tone"]},
]
ROW = {"messages": [USER], "rubrics": RUBRICS}
RUBRIC = {"type": "rubric", "name": "care", "model": "judge", "criteria": "{{item.rubrics}}"}
UNJUDGED = {"type": "rlvr", "name": "row"}
RLVR = UNJUDGED | {"judge": {"model": "judge"}}
Monkey = pytest.MonkeyPatch


def verdicts(received: Received) -> Any:
    """A judge that likes even criteria."""
    met = {
        str(number): {"reason": "", "met": number % 2 == 1}
        for number, _ in enumerate(criteria_in(received), 1)
    }
    return said(json.dumps(met))


FAULTY = {
    "a-rubric": (RUBRIC, ROW | {"rubrics": "be kind"}, "rubric is text that is not JSON"),
    "in-a-multi": (
        {"type": "multi", "name": "m", "graders": {"care": RUBRIC}, "calculate_output": "care"},
        ROW | {"rubrics": []},
        "0 criteria",
    ),
    "a-label": (
        RLVR,
        ROW | {"dataset": "general-quality_ref", "ground_truth": ""},
        "ground_truth",
    ),
    "an-unknown-verifier": (RLVR, ROW | {"dataset": "gsm9k", "ground_truth": "1"}, "gsm9k"),
}


@pytest.mark.parametrize(("grader", "row", "named"), FAULTY.values(), ids=FAULTY.keys())
def test_a_row_that_the_judge_could_not_be_asked_about_is_named(
    db: Session,
    tiny_model: Path,
    monkeypatch: Monkey,
    grader: dict[str, Any],
    row: dict[str, Any],
    named: str,
) -> None:
    good = ROW | {"dataset": "general-quality", "ground_truth": ""}
    with judge(monkeypatch, verdicts) as server:
        job = make_job(db, training=[good, good, row], grader=grader)
        assert validate_all("me", RUNNING)
        assert not server.received
    assert fresh(db, job).status == "failed"
    assert job.error
    assert job.error["code"] == "invalid_training_file"
    assert "line 3" in job.error["message"]
    assert named in job.error["message"]


@pytest.mark.long
def test_a_rubric_trains_with_a_curve_for_each_tag(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    with judge(monkeypatch, verdicts):
        job = make_job(db, training=[ROW, ROW], grader=RUBRIC | {"dropout": 0.4})
        assert validate_all("me", RUNNING)
        assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    steps = db.scalars(select(JobMetrics.values).where(JobMetrics.job_id == job.id)).all()
    curves = {name for step in steps for name in step if name.startswith("parts/train/")}
    assert {"parts/train/axis:tone", "parts/train/wanted", "parts/train/answered"} <= curves


def rlvr_job(db: Session, rows: list[dict[str, Any]]) -> Any:
    job = make_job(db, training=rows, grader=UNJUDGED)
    assert validate_all("me", RUNNING)
    return fresh(db, job)


def test_rows_are_a_jobs_training_file_as_they_are(db: Session, tiny_model: Path) -> None:
    assert rlvr_job(db, [GSM8K, IFEVAL, GSM8K | {"messages": [SYSTEM, ASKED]}]).status == "queued"


def test_a_job_names_the_line_of_an_unknown_verifier(db: Session, tiny_model: Path) -> None:
    job = rlvr_job(db, [GSM8K, GSM8K | {"dataset": "gsm9k"}])
    assert job.status == "failed"
    assert job.error["code"] == "invalid_training_file"
    assert "line 2" in job.error["message"]
    assert "gsm9k" in job.error["message"]
