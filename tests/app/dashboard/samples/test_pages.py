"""What the pages of completions show: prompt, reference, completion, and why it has its reward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboard.sign_in import COOKIE
from app.files import service as files
from app.jobs.models import Job
from app.regrades.models import Regrade
from app.tenants import sessions
from tests.factories import GRADER, Tenant, make_file, make_job, make_metrics, make_rollout, make_tenant

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "Be short. " * 100},
            {"role": "user", "content": f"Ask {i}"},
        ],
        "reference": {"city": f"Bonn {i}", "tags": ["a", "b"]},
    }
    for i in range(12)
]
FIELDS = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
    "fields": {"city": {"compare": "exact", "weight": 3}, "tags": {"compare": "set", "items": "exact"}},
}


@pytest.fixture
def reader(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    """A browser in which the tenant has signed in."""
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    cookies, headers = {COOKIE: token}, {"accept": "text/html"}
    with httpx.Client(base_url=server_url, cookies=cookies, headers=headers) as client:
        yield client


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A job of two steps; its rows begin on the second line of their file."""
    data = b"\n" + "\n".join(map(json.dumps, ROWS)).encode()
    file = make_file(db, tenant.project_id, data, name="people.jsonl")
    method = {"type": "reinforcement", "reinforcement": {"grader": FIELDS, "hyperparameters": {}}}
    made = make_job(db, tenant.project_id, training_file=file.id, validation_file=None, method=method)
    for step in (1, 4):
        for row in range(3):
            for sample in range(4):
                _answer(db, made, step, row, sample)
    db.commit()
    return made


def _answer(db: Session, job: Job, step: int, row: int, sample: int, **columns: Any) -> None:
    right = sample < step
    given = {"city": f"Bonn {row}" if right else "Rome", "tags": ["a"]}
    parts = {"city": float(right), "tags": 2 / 3, "tags.precision": 1.0, "tags.recall": 0.5}
    reason = "tags differs (0.67)" if right else "city differs; tags differs (0.67)"
    values: dict[str, Any] = {
        "text": json.dumps(given),
        "parts": parts,
        "reason": reason,
        "tokens": 10 + sample,
    }
    values["reward"] = (3 * right + 2 / 3) / 4
    make_rollout(db, job, step, row, sample, **values | columns)


def shown(reader: httpx.Client, job: Job, path: str = "") -> str:
    answer = reader.get(f"/dashboard/jobs/{job.id}/rollouts{path}")
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_completion_is_shown_with_prompt_reference_and_each_score(reader: httpx.Client, job: Job) -> None:
    page = shown(reader, job, "/one/train-1-2-3")
    assert "Line 4 of people.jsonl" in page
    for text in ("Ask 2", "reference.city", "Bonn 2", "reference.tags", "Rome", "0.167", "differs"):
        assert text in page
    assert page.count("<meter") == 4


def test_the_newest_step_is_shown_first_and_a_step_between_is_the_one_before(
    reader: httpx.Client, job: Job
) -> None:
    assert "completions, step 4</h2>" in shown(reader, job)
    assert "completions, step 1</h2>" in shown(reader, job, "?step=3")
    assert 'data-steps="1,4"' in shown(reader, job)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        pytest.param("line=3&sort=best", ["1-1-0", "1-1-1", "1-1-2", "1-1-3"], id="line"),
        pytest.param("low=0.9&sort=line", ["1-0-0", "1-1-0", "1-2-0"], id="reward-from"),
        pytest.param("high=0.5&line=2&sort=longest", ["1-0-3", "1-0-2", "1-0-1"], id="reward-to"),
        pytest.param("search=BONN+1", ["1-1-0"], id="text"),
        pytest.param("search=%25", [], id="wildcards-are-text"),
        pytest.param("failure=any", [], id="failures"),
        pytest.param("cut=1", [], id="truncated"),
        pytest.param("line=1", [], id="a-blank-line"),
    ],
)
def test_filters_and_orders(reader: httpx.Client, job: Job, query: str, ids: list[str]) -> None:
    page = shown(reader, job, f"?step=1&{query}")
    found = [part.split('"', 1)[0] for part in page.split(' id="train-')[1:]]
    assert found == ids


@pytest.mark.parametrize("sort", ["line", "best", "worst", "longest", "shortest"])
def test_pages_of_fifty_hold_each_completion_once(
    reader: httpx.Client, job: Job, sort: str, db: Session
) -> None:
    for row in range(3, 12):
        for sample in range(12):
            failed = {"reward": None, "failure": "sample_parse_error", "failure_message": "no JSON"}
            _answer(db, job, 9, row, sample, **(failed if sample % 5 == 4 else {}))
    db.commit()
    seen: list[str] = []
    query = f"?step=9&sort={sort}"
    for n in (50, 50, 8):
        page = shown(reader, job, query)
        ids = [part.split('"', 1)[0] for part in page.split(' id="train-')[1:]]
        assert len(ids) == n
        seen += ids
        query = f"?step=9&sort={sort}&after=train-{ids[-1]}"
    assert len(set(seen)) == 108


def test_what_is_shown_can_be_downloaded_with_its_rows(reader: httpx.Client, job: Job, db: Session) -> None:
    for row in range(12):
        for sample in range(8):
            _answer(db, job, 9, row, sample)
    db.commit()
    url = f"/dashboard/jobs/{job.id}/rollouts.jsonl"
    found = [json.loads(line) for line in reader.get(f"{url}?sort=longest&high=0.95").text.splitlines()]
    assert len({one["id"] for one in found}) == 96
    assert found[0]["tokens"] == 17
    assert all(one["item"] == ROWS[one["row"]] and one["line"] == one["row"] + 2 for one in found)
    assert reader.get(f"{url}?split=valid").status_code == 400


def test_what_an_address_has_wrong_is_said(reader: httpx.Client, job: Job) -> None:
    page = shown(reader, job, "?step=x&low=abc&high=nan&line=0&sort=odd&after=train-x&split=odd&failure=odd")
    for sentence in ("The step must be", "The lowest reward must be", "The highest reward", "from 1 on"):
        assert sentence in page


def test_a_group_has_its_mean_its_spread_and_its_best_and_worst(reader: httpx.Client, job: Job) -> None:
    page = shown(reader, job, "/group?split=train&step=1&row=0")
    assert "4 completions, mean reward" in page
    assert "0.354</b> ± 0.325 (0.167 to 0.917)" in page
    assert page.count("best of its group") == 1
    assert page.count("worst of its group") == 3


def test_one_prompt_is_followed_over_the_steps_and_compared(reader: httpx.Client, job: Job) -> None:
    page = shown(reader, job, "/row?split=train&row=1&show=worst")
    assert page.index('id="train-4-1-0"') < page.index('id="train-1-1-1"')
    assert "<polyline" in page
    difference = shown(reader, job, "/difference?before=train-1-1-3&after=train-4-1-0")
    assert "<del>" in difference
    assert "Rome" in difference


def test_a_deleted_file_is_told_and_completions_stay(
    reader: httpx.Client, job: Job, tenant: Tenant, db: Session
) -> None:
    job.status = "succeeded"
    files.remove(db, tenant.project_id, job.training_file)
    db.commit()
    for path in ("", "/one/train-1-2-3", "/group?split=train&step=1&row=0", "/row?split=train&row=0"):
        page = shown(reader, job, path)
        assert f"The file {job.training_file} was deleted" in page
        assert "Rome" in page or "Bonn" in page


def test_failures_of_parts_are_shown_where_they_were(reader: httpx.Client, job: Job, db: Session) -> None:
    sub = {
        "type": "string_check",
        "name": "same",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference.city}}",
    }
    grader = {
        "type": "multi",
        "name": "m",
        "graders": {"form": FIELDS, "same": sub},
        "calculate_output": "0.8 * form + 0.2 * same",
    }
    job.method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    failures = {"form": {"kind": "sample_parse_error", "message": "The output is not JSON: <b>"}}
    make_rollout(
        db,
        job,
        5,
        0,
        text="Bonn 0",
        reward=0.2,
        parts={"form": 0.0, "same": 1.0},
        part_failures=failures,
        reason="form: The output is not JSON: <b>",
    )
    db.commit()
    page = shown(reader, job, "?step=5")
    assert "sample_parse_error: The output is not JSON: &lt;b&gt;" in page
    assert "+0.8" in page
    assert "+0.2" in page


def test_a_regrade_starts_from_the_page_and_refusals_keep_what_was_written(
    reader: httpx.Client, job: Job, db: Session
) -> None:
    url = f"/dashboard/jobs/{job.id}/regrade"
    form = {"grader": '{"type": "odd"}', "scope": "step", "split": "train", "step": "4"}
    refused = reader.post(url, data=form)
    assert refused.status_code == 400
    assert "&#39;odd&#39;" in refused.text
    assert "{&#34;type&#34;: &#34;odd&#34;}" in refused.text
    assert "no valid JSON" in reader.post(url, data=form | {"grader": "{"}).text
    assert reader.post(url, data=form, headers={"origin": "https://evil.example"}).status_code == 403
    started = reader.post(url, data=form | {"grader": json.dumps({**GRADER, "reference": "x"})})
    assert started.status_code == 303
    regrade = db.scalars(select(Regrade)).one()
    assert regrade.source == {"type": "rollouts", "split": "train", "first_step": 4, "last_step": 4}
    page = reader.get(started.headers["location"])
    assert 'hx-trigger="every 2s"' in page.text
    assert reader.post(f"{started.headers['location']}/cancel").status_code == 303
    assert "cancelled" in reader.get(started.headers["location"]).text
    assert regrade.id in shown(reader, job)


def test_another_projects_completions_do_not_exist(reader: httpx.Client, db: Session) -> None:
    other = make_job(db, make_tenant(db, "other").project_id)
    make_rollout(db, other, 1, 0)
    db.commit()
    paths = ("", "/one/train-1-0-0", "/group?split=train&step=1&row=0", "/row?split=train&row=0")
    paths += ("/difference?before=train-1-0-0&after=train-1-0-0",)
    for path in paths:
        assert reader.get(f"/dashboard/jobs/{other.id}/rollouts{path}").status_code == 404
    assert reader.post(f"/dashboard/jobs/{other.id}/regrade", data={"grader": "{}"}).status_code == 404


def test_a_completion_of_several_seeds_names_its_own(reader: httpx.Client, job: Job, db: Session) -> None:
    make_metrics(db, job, 4, {"arm/seed": 9.0, "arm/step": 2.0, "arm/is_control": 1.0})
    db.commit()
    assert "control, seed 9, its own step 2" in shown(reader, job, "/one/train-4-0-0")
    assert "seed 7" in shown(reader, job, "/one/train-1-0-0")


def test_a_supervised_job_says_that_it_samples_none(
    reader: httpx.Client, tenant: Tenant, db: Session
) -> None:
    made = make_job(db, tenant.project_id, method={"type": "supervised", "supervised": {}})
    db.commit()
    assert "A supervised job learns from written completions" in shown(reader, made)


def test_a_job_without_completions_says_so(reader: httpx.Client, tenant: Tenant, db: Session) -> None:
    empty = make_job(db, tenant.project_id)
    db.commit()
    assert "They appear with the job's first step" in shown(reader, empty)
