"""Regrades over the API: what is refused, and what an owner can do with one."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.regrades.models import Regrade, RegradeResult
from tests.app.answers import error_of
from tests.factories import GRADER, Tenant, make_job, make_regrade, make_rollout, make_stored_chat

STORED = {"type": "stored_completions"}


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A job with one rollout."""
    made = make_job(db, tenant.project_id, status="succeeded")
    make_rollout(db, made, 3, 0, text="Ada")
    db.commit()
    return made


def result(seq: int, ref: str, difference: float | None, **columns: Any) -> RegradeResult:
    values = {"reward_before": 1.0, "reward": 0.5, "parts": {"a": 0.5}, "reason": "why"}
    distance = None if difference is None else abs(difference)
    named = {"seq": seq, "ref": ref, "data_row": ref, "difference": difference, "distance": distance}
    return RegradeResult(**named, **values | columns)


def test_a_regrade_is_answered_at_once_read_listed_and_cancelled(client: openai.OpenAI, job: Job) -> None:
    at = f"/fine_tuning/jobs/{job.id}/regrade"
    body = {"grader": GRADER, "split": "train", "first_step": 2, "metadata": {"why": "trial"}}
    made: Any = client.post(at, body=body, cast_to=object)
    assert (made["object"], made["status"], made["job_id"]) == ("regrade", "queued", job.id)
    assert made["source"] == {"type": "rollouts", "split": "train", "first_step": 2, "last_step": None}
    assert (made["progress"], made["comparison"]) == ({"phase": None, "done": 0, "total": None}, None)
    assert client.get(f"/regrades/{made['id']}", cast_to=object) == made
    for query, found in (("", [made]), (f"?job_id={job.id}", [made]), ("?job_id=ftjob-x", [])):
        listed: Any = client.get(f"/regrades{query}", cast_to=object)
        assert listed["data"] == found
    cancelled: Any = client.post(f"/regrades/{made['id']}/cancel", cast_to=object)
    assert cancelled["status"] == "cancelled"
    assert client.post(f"/regrades/{made['id']}/cancel", cast_to=object) == cancelled


def test_stored_completions_are_regraded_without_a_job(http: httpx.Client) -> None:
    made = http.post("/v1/regrades", json={"grader": GRADER, "baseline": GRADER, "source": STORED}).json()
    assert (made["job_id"], made["source"], made["baseline"]["name"]) == (None, STORED, GRADER["name"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "grader", id="no grader"),
        pytest.param({"grader": {"type": "none"}}, "grader.type", id="an unknown grader"),
        pytest.param(
            {"grader": GRADER, "baseline": {"type": "none"}}, "baseline.type", id="a wrong baseline"
        ),
        pytest.param({"grader": GRADER, "split": "test"}, "split", id="an unknown split"),
        pytest.param({"grader": GRADER, "first_step": 5, "last_step": 4}, "last_step", id="steps backwards"),
        pytest.param({"grader": GRADER, "first_step": 1, "last_step": 0}, "last_step", id="nor to zero"),
        pytest.param({"grader": GRADER, "first_step": 4}, None, id="no such rollouts"),
        pytest.param({"grader": GRADER, "steps": 4}, "steps", id="an unknown parameter"),
    ],
)
def test_what_cannot_be_graded_is_refused(
    http: httpx.Client, job: Job, body: dict[str, Any], param: str | None
) -> None:
    refused = http.post(f"/v1/fine_tuning/jobs/{job.id}/regrade", json=body)
    assert refused.status_code == 400
    assert error_of(refused)["param"] == param


def test_results_come_in_order_or_by_difference_with_their_texts(
    http: httpx.Client, db: Session, job: Job
) -> None:
    regrade = make_regrade(db, job, status="succeeded", comparison={"compared": 3}, done=4)
    differences = {"train-3-0-0": 0.1, "train-4-0-0": -0.9, "train-5-0-0": None, "train-6-0-0": 0.9}
    db.add_all(
        result(seq, ref, difference, regrade_id=regrade.id)
        for seq, (ref, difference) in enumerate(differences.items(), 1)
    )
    db.commit()

    def walk(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = f"&after={found[-1]['id']}" if found else ""
            page = http.get(f"/v1/regrades/{regrade.id}/results?limit=1{query}{after}").json()
            found += page["data"]
            if not page["has_more"]:
                return found

    assert [one["completion"] for one in walk("")] == list(differences)
    by_difference = walk("&order=difference")
    assert [one["difference"] for one in by_difference] == [0.9, -0.9, 0.1]
    assert [one["text"] for one in by_difference] == [None, None, "Ada"], "rollouts of later steps are gone"
    assert by_difference[2]["before"] == {"reward": 1.0, "failure": None}
    assert by_difference[2]["after"]["parts"] == {"a": 0.5}


def test_a_stored_completions_text_stays_with_its_result(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    chat = make_stored_chat(db, tenant.project_id)
    job = make_job(db, tenant.project_id)
    regrade = make_regrade(db, job, job_id=None, source=STORED)
    grade = {"reward_before": None, "text": "Hi."}
    db.add(result(1, f"{chat.id}/0", None, regrade_id=regrade.id, **grade))
    db.commit()
    (one,) = http.get(f"/v1/regrades/{regrade.id}/results").json()["data"]
    assert (one["text"], one["before"], one["completion"]) == ("Hi.", None, f"{chat.id}/0")


def test_a_project_has_so_many_regrades_at_a_time(
    http: httpx.Client, db: Session, job: Job, subtests: pytest.Subtests
) -> None:
    from app.settings import get_settings

    for _ in range(get_settings().max_active_jobs):
        make_regrade(db, job)
    db.commit()
    for path, more in ((f"/v1/fine_tuning/jobs/{job.id}/regrade", {}), ("/v1/regrades", {"source": STORED})):
        with subtests.test(path):
            assert http.post(path, json={"grader": GRADER, **more}).status_code == 429


def test_headers_of_an_endpoint_are_masked(http: httpx.Client, db: Session, job: Job) -> None:
    grader = {"type": "endpoint", "name": "e", "url": "https://1.1.1.1/g", "headers": {"x-key": "secret"}}
    made = http.post(f"/v1/fine_tuning/jobs/{job.id}/regrade", json={"grader": grader}).json()
    assert made["grader"]["headers"] == {"x-key": "********"}
    kept = db.get_one(Regrade, made["id"]).grader
    assert "secret" not in str(kept)
