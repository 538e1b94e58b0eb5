"""Grades and per-step metrics of a job: pages, filters, and the plans behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.events import service as events
from app.files import service as files
from app.jobs import service as jobs
from app.rollouts import service as rollouts
from tests.factories import Tenant, make_job, make_metrics, make_rollout


def walk(http: httpx.Client, path: str, query: str) -> list[dict[str, Any]]:
    """Every item of a list, page by page."""
    items: list[dict[str, Any]] = []
    after = ""
    while True:
        page = http.get(f"{path}?{query}{f'&after={after}' if after else ''}").json()
        items += page["data"]
        if not page["has_more"]:
            return items
        after = page["data"][-1]["id"]


def test_grades_are_paged_in_order_and_filtered(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="running")
    for step in (10, 2, 1):
        for row in (1, 0):
            for sample in (1, 0):
                make_rollout(db, job, step, row, sample, epoch=1 if step < 10 else 2)
    failed = {"reward": None, "failure": "other_error", "failure_message": "no luck"}
    make_rollout(db, job, 10, 7, split="valid", epoch=2, **failed)
    db.commit()
    path = f"/v1/fine_tuning/jobs/{job.id}/rollouts"
    places = [(each["step"], each["row"], each["sample"]) for each in walk(http, path, "limit=5")]
    assert places == sorted(places)
    assert len(places) == 12
    assert {each["step"] for each in walk(http, path, "step=2&limit=3")} == {2}
    assert {each["step"] for each in walk(http, path, "epoch=1&limit=3")} == {1, 2}
    assert len(walk(http, path, "row=1&limit=2")) == 6
    assert len(walk(http, path, "row=1&step=10&epoch=2")) == 2
    assert walk(http, path, "split=valid&limit=5") == [
        {
            "object": "fine_tuning.job.rollout",
            "id": "valid-10-7-0",
            "split": "valid",
            "step": 10,
            "epoch": 2,
            "row": 7,
            "line": 8,
            "sample": 0,
            "text": "a",
            "tokens": 2,
            "finish_reason": "stop",
            "reward": None,
            "failure": {"kind": "other_error", "message": "no luck"},
            "parts": {},
            "reason": "",
        }
    ]
    for cursor in ("x", "train-1-2", "train-1-2-99999999999999999", "-1-2-3-4", "train-a-b-c"):
        assert http.get(f"{path}?after={cursor}").status_code == 200
    for query in ("split=test", "step=-1", "step=99999999999", "limit=1001"):
        assert http.get(f"{path}?{query}").status_code == 400


def test_metrics_come_first_step_first(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    for step in (10, 0, 2):
        make_metrics(db, job, step, {"reward/mean": step / 10})
    db.commit()
    found = walk(http, f"/v1/fine_tuning/jobs/{job.id}/metrics", "limit=1")
    assert [(each["step"], each["values"]) for each in found] == [
        (0, {"reward/mean": 0.0}),
        (2, {"reward/mean": 0.2}),
        (10, {"reward/mean": 1.0}),
    ]


@pytest.fixture
def full_tables(db: Session, tenant: Tenant) -> tuple[str, str]:
    """A project whose tables are large: its id, and the id of a job with 200,000 grades."""
    job = make_job(db, tenant.project_id)
    ids = {"project": tenant.project_id, "job": job.id}
    fill = (
        "INSERT INTO rollouts (job_id, split, step, row, sample, epoch, attempt, text, tokens, finish_reason,"
        " reward, parts, reason) SELECT :job, CASE WHEN n % 10 = 0 THEN 'valid' ELSE 'train' END, n / 80,"
        " n % 80 / 8, n % 8, n / 8000, 1, 'text', 1, 'stop', 0.5, '{}', '' FROM generate_series(0, 199999) n",
        "INSERT INTO job_events (job_id, seq, id, key, level, type, message, data, attempt) SELECT :job, n,"
        " 'ftevent-' || n, 'k' || n, 'info', 'message', 'm', '{}', 1 FROM generate_series(1, 20000) n",
        "INSERT INTO job_metrics (job_id, step, epoch, attempt, values) SELECT :job, n, 1, 1, '{}'"
        " FROM generate_series(1, 20000) n",
        "INSERT INTO jobs (id, project_id, status, model, training_file, seed, method, metadata, created_at)"
        " SELECT 'ftjob-' || n, :project, 'succeeded', 'm', 'f', 1, '{}', jsonb_build_object('n', n::text),"
        " now() - n * interval '1 second' FROM generate_series(1, 20000) n",
        "INSERT INTO files (id, project_id, filename, bytes, sha256, purpose, status, storage_key,"
        " created_at) SELECT 'file-' || n, :project, 'f', 1, '', 'fine-tune', 'processed', 'k',"
        " now() - n * interval '1 second' FROM generate_series(1, 20000) n",
        "INSERT INTO checkpoints (id, job_id, step, epoch, attempt, model_name, storage_key, manifest, kl,"
        " kl_stderr) SELECT 'ftckpt_' || n, :job, n, 1, 1, 'm' || n, 'k', '{}', 0, 0"
        " FROM generate_series(1, 5000) n",
    )
    for statement in fill:
        db.execute(text(statement), {key: value for key, value in ids.items() if f":{key}" in statement})
    db.commit()
    db.execute(text("ANALYZE"))
    db.commit()
    return tenant.project_id, job.id


def test_every_page_is_a_range_of_an_index(
    db: Session, full_tables: tuple[str, str], subtests: pytest.Subtests
) -> None:
    project, job = full_tables
    pages = {
        "rollouts": lambda: rollouts.list_rollouts(db, job, rollouts.Filter("train"), after=None, limit=100),
        "rollouts, deep": lambda: rollouts.list_rollouts(
            db, job, rollouts.Filter("train"), after="train-2000-1-1", limit=100
        ),
        "rollouts of a step": lambda: rollouts.list_rollouts(
            db, job, rollouts.Filter("train", step=1000), after="train-1000-1-1", limit=100
        ),
        "rollouts of an epoch": lambda: rollouts.list_rollouts(
            db, job, rollouts.Filter("valid", epoch=20), after="valid-2050-1-1", limit=100
        ),
        "rollouts of a row": lambda: rollouts.list_rollouts(
            db, job, rollouts.Filter("train", row=3), after="train-1000-3-1", limit=100
        ),
        "jobs": lambda: jobs.list_jobs(db, project, metadata=None, after="ftjob-10000", limit=20),
        "jobs by metadata": lambda: jobs.list_jobs(db, project, metadata={"n": "17"}, after=None, limit=20),
        "files": lambda: files.list_files(
            db, project, purpose="fine-tune", order="desc", after="file-10000", limit=100
        ),
        "events": lambda: events.list_events(db, job, after="ftevent-10000", limit=100),
        "metrics": lambda: events.list_metrics(db, job, after="10000", limit=100),
        "checkpoints": lambda: checkpoints.list_kept(db, job, delivered=None, after="ftckpt_2000", limit=10),
    }
    for name, page in pages.items():
        with ran(db) as statements:
            rows = page().rows
        plan = explained(db, *statements[-1])
        with subtests.test(name):
            assert rows
            assert "Seq Scan" not in plan, plan
            read = [int(rows) for rows in re.findall(r"actual rows=(\d+)", plan)]
            assert max(read) <= 1100, plan


@contextmanager
def ran(db: Session) -> Iterator[list[tuple[str, Any]]]:
    """The statements that reach the database meanwhile, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    engine = db.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def explained(db: Session, statement: str, parameters: Any) -> str:
    """The plan as run, with row counts."""
    explain = f"EXPLAIN (ANALYZE, TIMING OFF, BUFFERS OFF) {statement}"
    return "\n".join(db.connection().exec_driver_sql(explain, parameters).scalars())
