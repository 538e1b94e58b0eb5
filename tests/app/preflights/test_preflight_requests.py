"""Preflights over the API: what is refused as a job would be, and what an owner can do with one."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.preflights.models import Preflight
from app.settings import get_settings
from tests.app.answers import error_of
from tests.app.jobs.job_requests import HYPER, changed
from tests.app.jobs.test_job_requests import REFUSED
from tests.factories import Tenant, make_preflight

CREATE = "/fine_tuning/jobs/preflight"


def test_a_preflight_is_answered_at_once_read_and_cancelled(
    client: openai.OpenAI, job_body: dict[str, Any]
) -> None:
    made: Any = client.post(CREATE, body=job_body, cast_to=object)
    assert made["object"] == "fine_tuning.preflight"
    assert made["id"].startswith("ftpre-")
    assert (made["status"], made["report"], made["progress"], made["error"]) == ("queued", None, None, None)
    at = f"/fine_tuning/preflights/{made['id']}"
    assert client.get(at, cast_to=object) == made
    assert client.get("/fine_tuning/preflights", cast_to=object)["data"] == [made]  # type: ignore[index]
    cancelled: Any = client.post(f"{at}/cancel", cast_to=object)
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] >= made["created_at"]
    assert client.post(f"{at}/cancel", cast_to=object) == cancelled, "a repeated cancel is no error"


def test_it_starts_no_job(http: httpx.Client, job_body: dict[str, Any]) -> None:
    http.post(f"/v1{CREATE}", json=job_body).raise_for_status()
    assert http.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_what_a_job_is_refused_for_a_preflight_is_too(
    http: httpx.Client, job_body: dict[str, Any], subtests: pytest.Subtests
) -> None:
    for case in REFUSED:
        path, value = case.values[:2]
        with subtests.test(str(case.id)):
            body = changed(job_body, str(path), value)
            as_job, refused = (http.post(f"/v1{at}", json=body) for at in ("/fine_tuning/jobs", CREATE))
            assert refused.status_code == as_job.status_code >= 400
            assert refused.json() == as_job.json()


@pytest.mark.parametrize(
    ("limits", "param", "code"),
    [
        ({"prompts": 257}, "preflight.prompts", "integer_above_max_value"),
        ({"samples": 1}, "preflight.samples", "integer_below_min_value"),
        ({"max_tokens": 0}, "preflight.max_tokens", "integer_below_min_value"),
        ({"rows": 1}, "preflight.rows", "unknown_parameter"),
        ("all", "preflight", "invalid_type"),
    ],
)
def test_limits_have_bounds(
    http: httpx.Client, job_body: dict[str, Any], limits: Any, param: str, code: str
) -> None:
    refused = http.post(f"/v1{CREATE}", json={**job_body, "preflight": limits})
    assert refused.status_code == 400
    assert (error_of(refused)["param"], error_of(refused)["code"]) == (param, code)


def test_one_that_is_over_cannot_be_cancelled(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    done = make_preflight(db, tenant.project_id, status="succeeded")
    db.commit()
    refused = http.post(f"/v1/fine_tuning/preflights/{done.id}/cancel")
    assert refused.status_code == 400
    assert (
        error_of(refused)["message"] == f"Preflight {done.id} has already succeeded; it cannot be cancelled."
    )


def test_a_project_has_only_so_many_under_way(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_ACTIVE_JOBS", "1")
    get_settings.cache_clear()
    assert http.post(f"/v1{CREATE}", json=job_body).status_code == 200
    assert http.post(f"/v1{CREATE}", json=job_body).status_code == 429
    assert http.post("/v1/fine_tuning/jobs", json=job_body).status_code == 200, "jobs are counted apart"


def test_lists_go_on_behind_an_item(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    ids = []
    for _ in range(3):
        ids.append(make_preflight(db, tenant.project_id).id)
        db.commit()  # created_at is the transaction's
    page = http.get("/v1/fine_tuning/preflights", params={"limit": 2}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    rest = http.get("/v1/fine_tuning/preflights", params={"after": ids[1]}).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[0]], False)


def test_the_samples_asked_for_are_kept(http: httpx.Client, db: Session, job_body: dict[str, Any]) -> None:
    body = {**job_body, "preflight": {"prompts": 0, "samples": None}}
    made = http.post(f"/v1{CREATE}", json=changed(body, f"{HYPER}.group_size", 4)).json()
    row = db.get_one(Preflight, made["id"])
    assert row.limits == {"prompts": 0}
    assert row.method["reinforcement"]["hyperparameters"]["group_size"] == 4
