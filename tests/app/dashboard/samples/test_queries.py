"""However many completions a job has, each page reads those of one step or of one row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from app.dashboard.samples import queries
from app.dashboard.samples.wanted import Wanted
from app.db import get_engine
from app.jobs.models import Job
from app.rollouts.service import Place
from tests.factories import Tenant, make_job, make_rollout

FILL = """
    INSERT INTO rollouts (job_id, split, step, row, sample, epoch, attempt, text, tokens, finish_reason,
                          reward, failure, parts, reason)
    SELECT :job, split, step, step % 25 * 16 + row, sample, step / 25, 1, repeat('word ', 40),
           (step * 7 + row * 3 + sample) % 90, CASE WHEN sample = 7 THEN 'length' ELSE 'stop' END,
           CASE WHEN sample = 5 THEN NULL ELSE ((step + row + sample) % 11) / 10.0 END,
           CASE WHEN sample = 5 THEN 'sample_parse_error' END, '{}', ''
    FROM unnest(ARRAY['train', 'valid']) split, generate_series(1, :steps) step, generate_series(0, 15) row,
         generate_series(0, 7) sample
"""


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Notes what is asked of the database."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(get_engine(), "before_cursor_execute", note)
    yield seen
    event.remove(get_engine(), "before_cursor_execute", note)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def read(db: Session, statement: str, parameters: Any) -> tuple[int, set[str]]:
    """Returns how many rows of the table a statement reads, and how."""
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    plan = db.connection().exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"]
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "rollouts"]
    count = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans
    )
    return round(count), {node["Node Type"] for node in scans}


@pytest.mark.long
def test_each_page_of_a_large_job_is_one_range_of_an_index(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    db.execute(text(FILL), {"job": job.id, "steps": 800})
    db.commit()
    db.connection(execution_options={"isolation_level": "AUTOCOMMIT"}).execute(
        text("VACUUM ANALYZE rollouts")
    )
    db.commit()
    everything = Wanted(low=0.1, failure="none", search="WORD", after="train-700-3-3")
    with statements() as seen:
        queries.splits(db, job.id)
        queries.newest_step(db, job.id, "train", most=500)
        queries.neighbours(db, job.id, "train", 500)
        assert queries.steps(db, job.id, "train", 500) == list(range(1, 801))
        assert queries.total(db, job.id, "train", 700).n == 128
        for sort in ("line", "best", "worst", "longest", "shortest"):
            page = queries.completions(db, job.id, 700, everything._replace(sort=sort), None)  # type: ignore[arg-type]
            assert page.rows
        queries.group_totals(db, job.id, "train", 700, list(range(16)))
        queries.group(db, job.id, "train", 700, 3)
        assert len(queries.history(db, job.id, "train", 3)) == 32
        queries.rewards(db, job.id, "train", 3, [700, 675])
        queries.at_places(db, job.id, "train", [Place(700, 3, 0), Place(675, 3, 1)])
    assert len(seen) > 15
    for statement, parameters in seen:
        n, how = read(db, statement, parameters)
        assert n <= 900, f"{n} rows by {how}: {statement}"
        assert "Seq Scan" not in how, statement


def test_steps_beyond_the_slider_are_thinned_and_the_one_shown_is_kept(db: Session, job: Job) -> None:
    for step in (0, 3, *range(10, 30)):
        make_rollout(db, job, step, 0)
    db.flush()
    assert queries.steps(db, job.id, "train", 3) == [0, 3, *range(10, 30)]
    thinned = queries.steps(db, job.id, "train", 11, most=10)
    assert thinned == [0, 3, 10, 11, 13, 16, 19, 22, 25, 28, 29]


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    return make_job(db, tenant.project_id)
