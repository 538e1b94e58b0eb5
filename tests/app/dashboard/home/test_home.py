"""The first page: what runs, what waits and where, what is over, and what this service has."""

from __future__ import annotations

from datetime import timedelta

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.dashboard.home.spark import spark
from app.events import service as events
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.factories import Tenant, make_job, make_metrics, make_tenant


def names_on(http: httpx.Client, query: str = "") -> set[str]:
    text = http.get(f"/dashboard{query}").text
    return {name for name in ("tries", "waits", "other", "done-a", "done-b") if f">{name}</a>" in text}


def test_jobs_are_listed_filtered_and_found(signed_in: httpx.Client, tenant: Tenant, db: Session) -> None:
    make_job(db, tenant.project_id, status="running", suffix="tries")
    make_job(db, tenant.project_id, status="queued", suffix="waits", method={"type": "dpo"})
    make_job(db, tenant.project_id, status="failed", suffix="done-a", model="large_model")
    make_job(db, tenant.project_id, status="succeeded", suffix="done-b")
    make_job(db, make_tenant(db, "other").project_id, suffix="other")
    db.commit()
    assert names_on(signed_in) == {"tries", "waits", "done-a", "done-b"}
    assert names_on(signed_in, "?status=active") == {"tries", "waits"}
    assert names_on(signed_in, "?status=failed") == {"done-a"}
    assert names_on(signed_in, "?method=dpo") == {"waits"}
    assert names_on(signed_in, "?q=DONE") == {"done-a", "done-b"}
    assert names_on(signed_in, "?q=e_m") == {"done-a"}, "marks of patterns are text"
    assert "No job fits" in signed_in.get("/dashboard?q=nothing%25").text


def test_a_queued_job_tells_its_place_and_what_it_waits_for(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    first, second = (make_job(db, tenant.project_id, status="queued") for _ in range(2))
    second.created_at = first.created_at + timedelta(seconds=1)
    events.append(db, second.id, "waits-for-devices-0", "The job waits for 2 GPUs")
    db.commit()
    text = signed_in.get("/dashboard").text
    assert text.index("place 1 of this project") < text.index(
        "place 2 of this project. The job waits for 2 GPUs"
    )


def test_whoever_has_no_job_is_told_what_to_do(signed_in: httpx.Client) -> None:
    text = signed_in.get("/dashboard").text
    assert "There is no job yet" in text
    assert "make demo" in text
    machine = signed_in.get("/dashboard/machine").text
    assert "GiB free of" in machine
    assert "0 hold a job now" in machine


def test_a_spark_goes_from_its_first_to_its_last_value() -> None:
    drawn = spark([0.0, 1.0, 0.5])
    assert 'points="3.0,25.0 60.0,3.0 117.0,14.0"' in drawn
    assert "from 0 to 0.5" in drawn
    assert spark([1.0]) == ""


@pytest.mark.slow
def test_the_first_page_shows_curves_and_goes_on_by_itself(
    visitor: Page, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", suffix="tries", last_step=100, total_steps=200)
    for step in range(101):
        make_metrics(db, job, step, {"reward/mean": step / 100})
    make_job(db, tenant.project_id, status="succeeded", suffix="done <b>")
    db.commit()
    visitor.goto("/dashboard")
    expect(visitor.get_by_role("img", name="from 0 to 1")).to_be_visible()
    expect(visitor.get_by_role("link", name="done <b>")).to_be_visible()
    expect(visitor.get_by_text("GiB free of")).to_be_visible()
    assert_fits_a_phone(visitor)
    job.last_step = 101
    db.commit()
    expect(visitor.get_by_role("row", name="tries")).to_contain_text("101/200", timeout=8000)
