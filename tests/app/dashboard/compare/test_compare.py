"""Jobs side by side: their curves, outcomes and differing settings, and whose they may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.dashboard.compare.settings_of_jobs import settings_of
from app.dashboard.sign_in import COOKIE
from app.jobs.models import Job
from app.tenants import sessions
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.factories import Tenant, make_checkpoint, make_job, make_metrics, make_tenant

HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture
def browser(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    headers = {"accept": "text/html", "cookie": f"{COOKIE}={token}"}
    with httpx.Client(base_url=f"{server_url}/dashboard", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def jobs(db: Session, tenant: Tenant) -> list[Job]:
    made = []
    for number, suffix in enumerate(("first", HOSTILE)):
        config = {"learning_rate": 0.001 * (number + 1), "beta": 0.04, "model_path": "/srv/secret-place"}
        job = make_job(
            db, tenant.project_id, status="succeeded", suffix=suffix, config=config, last_step=30, seed=1
        )
        for step in range(31):
            make_metrics(
                db, job, step, {"reward/mean": step / 30 / (number + 1), "kl/probe_mean": 0.01 * step}
            )
        make_checkpoint(db, job, 0, valid_reward=0.25)
        made.append(job)
    db.commit()
    return made


def test_curves_of_all_are_told_in_the_order_they_were_named(browser: httpx.Client, jobs: list[Job]) -> None:
    asked: Any = [("jobs", jobs[1].id), ("jobs", jobs[0].id)]
    told = browser.get("/compare/curves", params=asked).json()
    assert told["jobs"] == [HOSTILE, "first"]
    reward = next(chart for chart in told["charts"] if chart["title"] == "Training reward")
    assert reward["lines"][0][30] == [30, 0.5]
    assert reward["lines"][1][30] == [30, 1.0]
    assert "Training loss" not in [chart["title"] for chart in told["charts"]]


def test_only_what_differs_is_in_sight_and_no_folder(browser: httpx.Client, jobs: list[Job]) -> None:
    shown = browser.get("/compare", params=[("jobs", job.id) for job in jobs]).text
    assert shown.index("learning_rate") < shown.index("settings that are equal") < shown.index("beta")
    assert "secret-place" not in shown
    assert "<script>document" not in shown
    found = settings_of(jobs)
    assert [setting.name for setting in found.different] == ["learning_rate"]
    assert found.different[0].values == ["0.001", "0.002"]


def test_seven_jobs_are_too_many(browser: httpx.Client, db: Session, tenant: Tenant) -> None:
    many: Any = [("jobs", make_job(db, tenant.project_id).id) for _ in range(7)]
    db.commit()
    assert "At most 6 jobs are compared at a time" in browser.get("/compare", params=many).text
    assert browser.get("/compare/curves", params=many).status_code == 400


def test_jobs_of_another_project_are_not_there(server_url: str, db: Session, jobs: list[Job]) -> None:
    token = sessions.begin(db, make_tenant(db, "other").key_id)
    db.commit()
    with httpx.Client(base_url=server_url, headers={"cookie": f"{COOKIE}={token}"}) as stranger:
        for path in ("/dashboard/compare", "/dashboard/compare/curves"):
            assert stranger.get(path, params={"jobs": jobs[0].id}).status_code == 404
        assert jobs[0].id not in stranger.get("/dashboard/compare").text


@pytest.mark.slow
def test_a_person_chooses_two_jobs_and_sees_their_curves(visitor: Page, jobs: list[Job]) -> None:
    visitor.goto(f"/dashboard/jobs/{jobs[0].id}/checkpoints")
    visitor.get_by_role("link", name="Compare this job with others").click()
    for box in visitor.get_by_role("checkbox").all():
        box.check()
    visitor.get_by_role("button", name="Compare").click()
    expect(visitor.locator(".plot canvas").first).to_be_visible()
    expect(visitor.locator(".u-legend").first).to_contain_text(HOSTILE)
    assert "owned" not in visitor.title()
    assert_fits_a_phone(visitor)
