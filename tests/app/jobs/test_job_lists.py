"""Lists of jobs, of their events and of their checkpoints."""

from __future__ import annotations

import httpx2 as httpx
import openai
from sqlalchemy.orm import Session

from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.factories import (
    STEP_VALUES,
    Tenant,
    make_checkpoint,
    make_job,
    make_metrics,
)


def test_lists_are_filtered_by_every_pair_of_metadata(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    pairs: dict[str, dict[str, str] | None] = {
        "both": {"a": "1", "b": "2"},
        "one": {"a": "1"},
        "blank": {"a": ""},
        "none": None,
        "empty": {},
    }
    ids = {name: make_job(db, tenant.project_id, meta=meta).id for name, meta in pairs.items()}
    db.commit()

    def found(query: str) -> set[str]:
        jobs = http.get(f"/v1/fine_tuning/jobs?{query}").json()["data"]
        return {name for name, job_id in ids.items() if job_id in [job["id"] for job in jobs]}

    assert found("metadata[a]=1") == {"both", "one"}
    assert found("metadata%5Ba%5D=1&metadata%5Bb%5D=2") == {"both"}
    assert found("metadata[a]=") == {"blank"}
    assert found("metadata[c]=1") == set()
    assert found("metadata=null") == {"none", "empty"}
    assert found("") == set(pairs)


def test_the_client_walks_all_pages_newest_first(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    ids = []
    for _ in range(5):
        ids.append(make_job(db, tenant.project_id).id)
        db.commit()
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == ids[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2, metadata={"x": "y"})] == []


def test_events_are_paged_newest_first(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    from app.events import service as events

    job = make_job(db, tenant.project_id)
    for number in range(5):
        events.append(db, job.id, f"e{number}", f"event {number}", data={"step": 1} if number == 2 else None)
    db.commit()
    walked = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in walked] == [f"event {number}" for number in (4, 3, 2, 1, 0)]
    assert [event.type for event in walked] == ["message", "message", "metrics", "message", "message"]
    assert walked[0].data == {}
    assert len(client.fine_tuning.jobs.list_events(job.id, limit=1000).data) == 5


def test_only_kept_checkpoints_are_listed_highest_step_first(
    client: openai.OpenAI, http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="running")
    kept = [make_checkpoint(db, job, step).id for step in (1, 2, 3)]
    dropped = make_checkpoint(db, job, 4, storage_key=None)
    make_metrics(db, job, 3)
    db.commit()
    walked = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert [each.id for each in walked] == kept[::-1]
    after_dropped = client.fine_tuning.jobs.checkpoints.list(job.id, after=dropped.id).data
    assert [each.id for each in after_dropped] == kept[::-1]
    metrics = walked[0].metrics.model_dump(exclude_none=True)
    assert metrics["train_mean_reward"] == metrics["train_reward_mean"] == STEP_VALUES["reward/mean"]
    assert metrics["full_valid_mean_reward"] == metrics["valid_reward_mean"] == 0.68
    assert (metrics["step"], metrics["kl"], metrics["kl_stderr"]) == (3, 0.01, 0.002)
    listed = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()
    openai_schema.check(listed, "ListFineTuningJobCheckpointsResponse")
    assert None not in listed["data"][0]["metrics"].values()


def test_an_error_that_is_not_known_is_null(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    """Of one probe prompt, and of one to three validation rows."""
    job = make_job(db, tenant.project_id)
    unknown = {"kl_stderr": None, "valid_reward_stderr": None, "advantage_stderr": None}
    make_checkpoint(db, job, 2, advantage_over_base=0.1, **unknown)
    make_checkpoint(db, job, 1, valid_reward=None, valid_reward_stderr=None)
    db.commit()
    listed = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()
    openai_schema.check(listed, "ListFineTuningJobCheckpointsResponse")
    metrics, without_rows = [checkpoint["metrics"] for checkpoint in listed["data"]]
    assert {name: metrics[name] for name in unknown} == unknown
    assert (metrics["kl"], metrics["advantage_over_base"], metrics["valid_reward_mean"]) == (0.01, 0.1, 0.68)
    assert None not in without_rows.values()
    assert "valid_reward_stderr" not in without_rows


def test_odd_but_harmless_queries_are_answered(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    db.commit()
    for what in ("", "/events", "/checkpoints"):
        path = f"/v1/fine_tuning/jobs{f'/{job.id}' if what else ''}{what}"
        assert http.get(f"{path}?limit=0").json()["data"] == []
        assert http.get(f"{path}?after=none&limit=1000").status_code == 200
        error = error_of(http.get(f"{path}?limit=-1"))
        assert (error["param"], error["code"]) == ("limit", "integer_below_min_value")
