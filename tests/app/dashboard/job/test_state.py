"""What is said of a job in words, and what its owner may ask of it on its page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2 as httpx
from sqlalchemy.orm import Session

from app.dashboard.job.state import TO_DO, standing, state
from app.events import service as events
from app.jobs.models import Job
from tests.factories import Tenant, make_checkpoint, make_job

PART = {"hx-request": "true"}


def test_it_says_where_a_job_is(db: Session, tenant: Tenant) -> None:
    def said(**columns: object) -> str:
        return state(db, make_job(db, tenant.project_id, **columns), []).now  # type: ignore[arg-type]

    soon = datetime.now(UTC) + timedelta(minutes=5, seconds=30)
    running = said(status="running", last_step=3, total_steps=9, phase="sampling", estimated_finish=soon)
    assert running.startswith("Step 3 of 9, sampling completions; about 5 min ")
    assert running.endswith(" UTC.")
    assert "pauses at its next step" in said(status="running", pause_requested_at=soon)
    assert "until" not in said(status="paused")
    room = {"bytes": 3 * 2**30, "folder": "/data"}
    assert "once 3.0 GiB are free in /data" in said(status="paused", waits_for_room=room)
    first, second = (make_job(db, tenant.project_id, status="queued") for _ in range(2))
    second.created_at = first.created_at + timedelta(seconds=1)
    db.flush()
    assert "1 job of this project is before it" in state(db, second, []).now


def test_how_it_stands_is_one_sentence_with_its_interval(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    made = make_checkpoint(db, job, 5, advantage_over_base=0.2, trust={"low": 0.1, "high": 0.3})
    assert standing([made]) == "At step 5 the reward is +0.200 over the base (95 %: +0.100 to +0.300)."
    assert standing([make_checkpoint(db, job, 0)]) == ""


def test_a_failure_is_told_once_with_its_lines_and_what_to_do(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    message = "2 lines are wrong.\nLine 3: no <answer>."
    error = {"code": "invalid_training_file", "message": message, "param": "training_file"}
    job = make_job(db, tenant.project_id, status="failed", error=error)
    events.append(db, job.id, "failed", f"The job failed: {message}", level="error")
    db.commit()
    page = signed_in.get(f"/dashboard/jobs/{job.id}").text
    assert page.count("Line 3: no &lt;answer&gt;.") == 1
    assert "2 lines are wrong.\nLine 3" in page
    assert TO_DO["invalid_training_file"].split("`")[0] in page


def test_buttons_ask_what_the_api_asks_and_say_why_not(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="queued")
    db.commit()
    path = f"/dashboard/jobs/{job.id}"

    def status() -> str:
        db.expire_all()
        return db.get_one(Job, job.id).status

    assert "Resume" in signed_in.post(f"{path}/pause", headers=PART).text
    assert status() == "paused"
    assert signed_in.post(f"{path}/resume").status_code == 303
    assert status() == "queued"
    assert "Cancel this job" not in signed_in.post(f"{path}/cancel", headers=PART).text
    assert status() == "cancelled"
    refused = signed_in.post(f"{path}/pause", headers=PART)
    assert "only a job that is queued or running can be paused" in refused.text
    assert signed_in.post(f"{path}/pause").status_code == 400
    elsewhere = signed_in.post(f"{path}/cancel", headers={"sec-fetch-site": "cross-site"})
    assert elsewhere.status_code == 403


def test_buttons_are_not_put_anew_under_somebodys_hand(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="queued")
    db.commit()
    part = signed_in.get(f"/dashboard/jobs/{job.id}/now?has=queued").text
    assert 'id="now"' in part
    assert "Cancel this job" not in part
    assert "Cancel this job" in signed_in.get(f"/dashboard/jobs/{job.id}/now?has=running").text


def test_news_stream_unbuffered_and_end_with_the_job(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    events.append(db, job.id, "one", "First")
    events.append(db, job.id, "two", "Second")
    db.commit()
    with signed_in.stream("GET", f"/dashboard/jobs/{job.id}/live?after=1") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        told = "".join(stream.iter_text())
    assert "Second" in told
    assert "First" not in told
    assert told.endswith("data: [DONE]\n\n")
    again = signed_in.get(f"/dashboard/jobs/{job.id}/live", headers={"last-event-id": "2"})
    assert again.status_code == 204
