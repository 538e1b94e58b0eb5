"""The page of a job in a real browser: curves that move while it runs."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.events import service as events
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.factories import Tenant, make_checkpoint, make_job, make_metrics

pytestmark = pytest.mark.slow


def test_curves_are_drawn_zoomed_and_come_live_without_reloading(
    visitor: Page, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", suffix="live", last_step=20, total_steps=30)
    for step in range(21):
        make_metrics(
            db, job, step, {"reward/mean": step / 20, "kl/reference": step / 100, "parts/train/<b>": 0.5}
        )
    make_checkpoint(db, job, 20)
    data = {"step": 10, "number": 1}
    events.append(db, job.id, "action-10-1", "Guard: <i>back</i>", level="warn", data=data, is_metrics=False)
    db.commit()
    visitor.goto(f"/dashboard/jobs/{job.id}")
    visitor.evaluate("window.stays = true")
    charts = visitor.locator("figure.chart")
    expect(charts.filter(has_text="Reward")).to_be_visible()
    expect(charts.filter(has_text="Parts of the grade")).to_contain_text("<b>")
    mark = charts.first.locator(".chart-mark")
    expect(mark).to_have_attribute("title", "Guard: <i>back</i>")
    assert mark.bounding_box() is not None
    over = charts.first.locator(".u-over")
    box = over.bounding_box()
    assert box is not None
    over.hover(position={"x": box["width"] / 2, "y": 40})
    expect(charts.first.locator(".mark-note")).to_have_text("Guard: <i>back</i>")
    expect(charts.nth(1).locator(".u-legend .u-value").first).to_have_text("10")  # the cursors go together
    charts.first.get_by_text("Numbers").click()
    expect(charts.first.locator("details tbody tr")).to_have_count(21)
    make_metrics(db, job, 21, {"reward/mean": 0.99, "kl/reference": 0.3, "parts/train/<b>": 0.6})
    job.last_step = 21
    events.append(db, job.id, "step-21", "Step 21/30", data={"step": 21})
    db.commit()
    expect(visitor.locator("#now")).to_contain_text("Step 21 of 30")
    expect(visitor.locator(".events")).to_contain_text("Step 21/30")
    over.hover(position={"x": box["width"] - 1, "y": 40})
    expect(charts.first.locator(".u-legend .u-value").first).to_have_text("21")
    assert visitor.evaluate("window.stays"), "the page was reloaded"
    assert_fits_a_phone(visitor)


def test_the_job_is_paused_and_cancelled_by_its_buttons(visitor: Page, tenant: Tenant, db: Session) -> None:
    job = make_job(db, tenant.project_id, status="queued")
    db.commit()
    visitor.goto(f"/dashboard/jobs/{job.id}")
    visitor.get_by_role("button", name="Pause").click()
    expect(visitor.locator("#status")).to_have_text("paused")
    visitor.get_by_role("button", name="Resume").click()
    expect(visitor.locator("#status")).to_have_text("queued")
    visitor.get_by_text("Cancel…").click()
    visitor.get_by_role("button", name="Cancel this job").click()
    expect(visitor.locator("#status")).to_have_text("cancelled")
