"""How each training row fared, epoch by epoch: over the API, and at what cost."""

from __future__ import annotations

import re
from typing import Any

import httpx2 as httpx
import pytest
from openai import OpenAI
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.rollouts import rows
from tests.app.rollouts.test_rollouts import explained, ran, walk
from tests.factories import Tenant, make_job, make_rollout


def rewarded(db: Session, job: Any, row: int, epoch: int, *rewards: float | str) -> None:
    for sample, reward in enumerate(rewards):
        columns: dict[str, Any] = {"reward": reward}
        if isinstance(reward, str):
            columns = {"reward": None, "failure": reward, "failure_message": "no"}
        make_rollout(db, job, 2 * epoch + row % 2, row, sample, epoch=epoch, **columns)


def epoch_of(
    epoch: int, mean: float | None, n: int, right: Any, wrong: Any, failed: int = 0
) -> dict[str, Any]:
    shares = {"right_share": right, "wrong_share": wrong}
    return {"epoch": epoch, "mean_reward": mean, "n": n, "failed": failed, **shares}


def test_a_row_has_its_pass_rate_by_epoch(client: OpenAI, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="running")
    rewarded(db, job, 0, 1, 0.0, 0.0, 1.0, 0.5)
    rewarded(db, job, 0, 2, 1.0, 0.9995, 1.0, 1.0)
    rewarded(db, job, 3, 1, "sample_parse_error", 1.0, "other_error", 0.0)
    rewarded(db, job, 3, 9, "other_error")
    make_rollout(db, job, 1, 5, split="valid")
    db.commit()
    found: Any = client.get(f"/fine_tuning/jobs/{job.id}/rows", cast_to=object)
    assert found == {
        "object": "list",
        "data": [
            {
                "object": "fine_tuning.job.row",
                "id": "0",
                "row": 0,
                "line": 1,
                "epochs": [
                    epoch_of(1, 0.375, 4, 0.25, 0.5),
                    epoch_of(2, pytest.approx(0.999875), 4, 1.0, 0.0),
                ],
            },
            {
                "object": "fine_tuning.job.row",
                "id": "3",
                "row": 3,
                "line": 4,
                "epochs": [
                    epoch_of(
                        1, pytest.approx(1 / 3), 3, pytest.approx(1 / 3), pytest.approx(2 / 3), failed=1
                    ),
                    epoch_of(9, None, 0, None, None, failed=1),
                ],
            },
        ],
        "first_id": "0",
        "last_id": "3",
        "has_more": False,
    }


def test_right_and_wrong_are_the_ends_of_the_graders_range(
    client: OpenAI, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="running")
    job.config = {"reward_range": [-2.0, 2.0]}
    rewarded(db, job, 0, 1, -2.0, 1.0, 2.0, "sample_parse_error")
    db.commit()
    found: Any = client.get(f"/fine_tuning/jobs/{job.id}/rows", cast_to=object)
    assert found["data"][0]["epochs"] == [epoch_of(1, -0.25, 4, 0.25, 0.5)]


def test_rows_are_paged_and_epochs_are_a_range(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="running")
    for row in (7, 0, 2):
        for epoch in (1, 2, 150, 320):
            rewarded(db, job, row, epoch, 1.0)
    db.commit()
    path = f"/v1/fine_tuning/jobs/{job.id}/rows"
    for limit in (1, 2, 3):
        assert [each["row"] for each in walk(http, path, f"limit={limit}")] == [0, 2, 7]
    for query, epochs in {
        "": [150, 320],
        "first_epoch=1": [1, 2, 150],
        "first_epoch=2&last_epoch=149": [2],
        "last_epoch=200": [1, 2, 150],
        "first_epoch=1&last_epoch=10000": [1, 2, 150],
        "first_epoch=400": [],
    }.items():
        (row, *_) = http.get(f"{path}?{query}").json()["data"]
        assert [each["epoch"] for each in row["epochs"]] == epochs
    assert http.get(f"{path}?after=7").json()["data"] == []
    assert http.get(f"{path}?after=x&limit=0").json()["has_more"] is True
    for query in ("limit=101", "first_epoch=-1", "last_epoch=x"):
        assert http.get(f"{path}?{query}").status_code == 400
    empty = make_job(db, tenant.project_id)
    db.commit()
    assert http.get(f"/v1/fine_tuning/jobs/{empty.id}/rows").json()["data"] == []


def test_hundreds_of_epochs_are_read_by_indexes(db: Session, tenant: Tenant) -> None:
    """48 rows, 200 epochs of 8 completions; an answer for one epoch reads that epoch alone."""
    job = make_job(db, tenant.project_id)
    fill = (
        "INSERT INTO rollouts (job_id, split, step, row, sample, epoch, attempt, text, tokens, finish_reason,"
        " reward, parts, reason) SELECT :job, 'train', n / 64, n / 8 % 48, n % 8, 1 + n / 384, 1, 'text', 1,"
        " 'stop', n % 2, '{}', '' FROM generate_series(0, 76799) n"
    )
    db.execute(text(fill), {"job": job.id})
    db.commit()
    db.execute(text("ANALYZE rollouts"))
    db.commit()
    with ran(db) as statements:
        page = rows.list_rows(db, job.id, rows.Epochs(7, 7), None, after=None, limit=20)
    assert [len(row.epochs) for row in page.rows] == [1] * 20
    plans = [explained(db, *statement) for statement in statements]
    assert not [plan for plan in plans if "Seq Scan" in plan]
    read = [int(each) for plan in plans for each in re.findall(r"actual rows=(\d+)", plan)]
    assert max(read) == 8 * 20
    whole = rows.list_rows(db, job.id, rows.Epochs(None, None), None, after=None, limit=48)
    assert sum(epoch.n for row in whole.rows for epoch in row.epochs) == 76_800
    assert not whole.has_more
