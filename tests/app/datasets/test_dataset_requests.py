"""Data sets over the API: what is refused, and what an owner can do with one."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.datasets.models import Dataset
from app.settings import get_settings
from tests.app.answers import error_of
from tests.factories import Tenant, make_dataset, make_file, make_job, make_source

CREATE = "/v1/datasets/from-stored"


def test_a_data_set_is_answered_at_once_read_and_cancelled(client: openai.OpenAI) -> None:
    body = {"format": "supervised", "filter": {"min_reward": 0.75}, "metadata": {"a": "b"}}
    made: Any = client.post("/datasets/from-stored", body=body, cast_to=object)
    assert (made["object"], made["status"], made["file_id"], made["report"]) == (
        "dataset",
        "queued",
        None,
        None,
    )
    assert (made["format"], made["metadata"], made["jobs"]) == ("supervised", {"a": "b"}, [])
    assert made["request"]["dedupe"] == "near", "defaults are filled in"
    at = f"/datasets/{made['id']}"
    assert client.get(at, cast_to=object) == made
    assert client.get("/datasets", cast_to=object)["data"] == [made]  # type: ignore[index]
    cancelled: Any = client.post(f"{at}/cancel", cast_to=object)
    assert cancelled["status"] == "cancelled"
    assert client.post(f"{at}/cancel", cast_to=object) == cancelled, "a repeated cancel is no error"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        pytest.param({"format": None}, "format", None, id="no-format"),
        pytest.param({"format": "rft"}, "format", "invalid_value", id="unknown-format"),
        pytest.param(
            {"filter": {"min_reward": 0.8, "max_reward": 0.7}},
            "filter.min_reward",
            "invalid_value",
            id="rewards",
        ),
        pytest.param(
            {"filter": {"created_after": 5, "created_before": 5}},
            "filter.created_after",
            "invalid_value",
            id="times",
        ),
        pytest.param({"filter": {"feedback": []}}, "filter.feedback", None, id="no-kind-of-feedback"),
        pytest.param({"filter": {"users": 1}}, "filter.users", "unknown_parameter", id="unknown-filter"),
        pytest.param({"on_leak": "fail"}, "on_leak", "invalid_value", id="leak-of-nothing"),
        pytest.param({"filename": "../x.jsonl"}, "filename", None, id="a-path"),
        pytest.param({"filename": "x.txt"}, "filename", None, id="no-jsonl"),
        pytest.param({"max_rows": 50_001}, "max_rows", "integer_above_max_value", id="too-many"),
        pytest.param({"redact": "def redact(row:"}, "redact", "invalid_value", id="no-python"),
        pytest.param({"redact": "def other(row): return row"}, "redact", "invalid_value", id="no-redact"),
        pytest.param({"redact": "def redact(): return 1"}, "redact", "invalid_value", id="no-argument"),
        pytest.param({"validation_file": "file-none"}, "validation_file", None, id="no-such-file"),
    ],
)
def test_what_cannot_be_made_is_refused(
    http: httpx.Client, body: dict[str, Any], param: str, code: str | None
) -> None:
    refused = http.post(CREATE, json={"format": "supervised", **body})
    assert refused.status_code == (404 if param == "validation_file" else 400)
    error = error_of(refused)
    assert error["param"] == param
    assert code is None or error["code"] == code


def test_a_project_has_no_more_under_way_than_it_may(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    for _ in range(get_settings().max_active_jobs):
        make_dataset(db, tenant.project_id)
    db.commit()
    refused = http.post(CREATE, json={"format": "supervised"})
    assert refused.status_code == 429
    assert "100 unfinished data sets" in error_of(refused)["message"]


def test_it_shows_the_jobs_that_train_on_it_and_is_found_by_its_file(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    file = make_file(db, tenant.project_id)
    made = make_dataset(db, tenant.project_id, status="succeeded", file_id=file.id, report={"rows": 1})
    db.commit()
    other = make_dataset(db, tenant.project_id)
    job = make_job(db, tenant.project_id, status="succeeded", training_file=file.id, fine_tuned_model="ft:x")
    make_job(db, tenant.project_id)
    db.commit()
    trained = {"id": job.id, "status": "succeeded", "model": "cherry-nano", "fine_tuned_model": "ft:x"}
    assert http.get(f"/v1/datasets/{made.id}").json()["jobs"] == [trained]
    (found,) = http.get("/v1/datasets", params={"file_id": file.id}).json()["data"]
    assert (found["id"], found["jobs"]) == (made.id, [trained])
    assert [row["id"] for row in http.get("/v1/datasets").json()["data"]] == [other.id, made.id]


def test_rows_are_listed_in_pages_by_their_lines(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    made: Dataset = make_dataset(db, tenant.project_id, status="succeeded", report={"rows": 5})
    for line in range(1, 6):
        make_source(db, made, f"chatcmpl-{line}", line)
    db.commit()
    at, seen, after = f"/v1/datasets/{made.id}/rows", [], ""
    while True:
        page = http.get(at, params={"limit": 2, "after": after}).json()
        seen += [(row["line"], row["sources"][0]["completion_id"]) for row in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == [(line, f"chatcmpl-{line}") for line in range(1, 6)]


def test_what_is_over_is_not_cancelled(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    made = make_dataset(db, tenant.project_id, status="succeeded")
    db.commit()
    refused = http.post(f"/v1/datasets/{made.id}/cancel")
    assert refused.status_code == 400
    assert "already succeeded" in error_of(refused)["message"]
