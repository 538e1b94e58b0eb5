"""A job is made in a real browser, as somebody would who has read nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.models import Job
from tests.app.dashboard.windows import assert_fits_a_phone

pytestmark = pytest.mark.slow

ROW = {"messages": [{"role": "user", "content": "Name a city"}], "city": "Pisa", "answer": "Pisa"}


def test_a_person_makes_a_job_from_two_files(visitor: Page, db: Session, tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(ROW) + "\n") * 12)
    visitor.goto("/dashboard/new")
    visitor.get_by_label("Model", exact=True).select_option("cherry-nano")
    for field, name in (("training_file", "train"), ("validation_file", "valid")):
        visitor.set_input_files(f"#upload-{field}", tmp_path / f"{name}.jsonl")
        expect(visitor.locator(f"#{field} option:checked")).to_contain_text(f"{name}.jsonl")
        expect(visitor.locator(".data .good")).to_have_count(2 if name == "valid" else 1)
    visitor.get_by_role("button", name="Run the grader").click()
    expect(visitor.get_by_text("the full score")).to_have_count(3)
    visitor.get_by_label("operation").select_option("ilike")
    visitor.get_by_role("button", name="JSON", exact=True).click()
    text = visitor.get_by_label("The grader as JSON")
    grader = json.loads(text.input_value())
    assert grader["operation"] == "ilike"
    text.fill("{")
    visitor.get_by_role("button", name="Create job").click()
    expect(visitor.get_by_role("alert").first).to_contain_text("The job was not created")
    expect(text).to_have_value("{")
    text.fill(json.dumps({**grader, "operation": "eq"}))
    visitor.get_by_role("button", name="Form", exact=True).click()
    expect(visitor.get_by_label("operation")).to_have_value("eq")
    visitor.get_by_label("n_epochs").fill("3")
    assert_fits_a_phone(visitor)
    visitor.get_by_role("button", name="Create job").click()
    visitor.wait_for_url("**/dashboard/jobs/ftjob-*")
    job = db.scalars(select(Job)).one()
    assert job.method["reinforcement"]["grader"]["operation"] == "eq"
    assert job.method["reinforcement"]["hyperparameters"]["n_epochs"] == 3


def test_the_playground_keeps_what_was_typed(visitor: Page) -> None:
    visitor.goto("/dashboard/graders")
    visitor.get_by_label("The model's answer").fill("London")
    visitor.get_by_role("button", name="Run", exact=True).click()
    expect(visitor.locator("#result .score")).to_have_text("0")
    visitor.get_by_label("operation").select_option("ne")
    visitor.reload()
    expect(visitor.get_by_label("operation")).to_have_value("ne")
    expect(visitor.get_by_label("The model's answer")).to_have_value("London")
    visitor.get_by_role("button", name="Run", exact=True).click()
    expect(visitor.locator("#result .score")).to_have_text("1")
    assert_fits_a_phone(visitor)
