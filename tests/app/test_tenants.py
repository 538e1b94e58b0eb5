"""A tenant sees only its own rows: every route with an id answers for another's as for none."""

from __future__ import annotations

import re
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from app.main import create_app
from app.settings import Settings
from app.tenants import service as tenants
from tests.app.routes import walk
from tests.factories import (
    GRADER,
    Tenant,
    make_checkpoint,
    make_dataset,
    make_erasure,
    make_eval,
    make_eval_run,
    make_feedback,
    make_file,
    make_job,
    make_metrics,
    make_output_item,
    make_permission,
    make_preflight,
    make_regrade,
    make_rollout,
    make_stored_chat,
    make_stored_response,
    make_tenant,
    make_tuned_model,
    make_upload,
    make_webhook_endpoint,
)

LISTS = {
    "/v1/chat/completions",
    "/v1/evals",
    "/v1/datasets",
    "/v1/erasures",
    "/v1/feedback",
    "/v1/files",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/preflights",
    "/v1/regrades",
    "/v1/webhook_endpoints",
}
NO_ID = LISTS | {
    "/v1/datasets/from-stored",
    "/v1/uploads",
    "/v1/fine_tuning/jobs/preflight",
    "/v1/models",
    "/v1/webhook_event_types",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/fine_tuning/card_keys",
    "/v1/fine_tuning/environments",
    "/v1/fine_tuning/alpha/graders/run",
    "/v1/fine_tuning/alpha/graders/validate",
}
"""Routes below /v1 that name no object; the lists among them are tested below."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
ELSEWHERE = re.compile(
    r"/healthz|/readyz|/openapi\.json|/docs/oauth2-redirect|/dashboard(/.*)?|/v1/organization/.*"
)
"""Everything else that the service answers: without a key, or with tests of its own (the dashboard, and in
test_organization.py what takes an admin key)."""


@pytest.fixture
def theirs(db: Session, tenant: Tenant) -> dict[str, str]:
    """One of everything, of another project; by the name of its path parameter."""
    other = make_tenant(db, "other")
    job = make_job(db, other.project_id, status="running", meta={"a": "1"})
    checkpoint = make_checkpoint(db, job, 1, {"model/x": b"y"})
    make_metrics(db, job, 1)
    make_rollout(db, job, 1, 0)
    file = make_file(db, other.project_id)
    model = make_tuned_model(db, job)
    endpoint = make_webhook_endpoint(db, other.project_id)
    upload = make_upload(db, other.project_id)
    preflight = make_preflight(db, other.project_id)
    regrade = make_regrade(db, job)
    permission = make_permission(db, checkpoint, other.project_id)
    chat, response = make_stored_chat(db, other.project_id), make_stored_response(db, other.project_id)
    evaluation = make_eval(db, other.project_id)
    run = make_eval_run(db, evaluation)
    item = make_output_item(db, run)
    dataset, erasure = make_dataset(db, other.project_id), make_erasure(db, other)
    feedback = make_feedback(db, chat)
    db.commit()
    return {
        "eval_id": evaluation.id,
        "run_id": run.id,
        "output_item_id": item.id,
        "dataset_id": dataset.id,
        "erasure_id": erasure.id,
        "feedback_id": feedback.id,
        "job_id": job.id,
        "fine_tuned_model_checkpoint": checkpoint.model_name,
        "permission_id": permission.id,
        "completion_id": chat.id,
        "response_id": response.id,
        "checkpoint_id": checkpoint.id,
        "file_id": file.id,
        "preflight_id": preflight.id,
        "regrade_id": regrade.id,
        "model": model.name,
        "webhook_endpoint_id": endpoint.id,
        "upload_id": upload.id,
        "key": other.key,
    }


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every operation that the service answers, whether its document shows it or not."""
    return [(method, route.path) for route in walk(app.routes) for method in sorted(route.methods or ())]


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: ids[found[1]], path)


def test_anothers_id_answers_byte_for_byte_like_none(
    http: httpx.Client, server_url: str, theirs: dict[str, str], subtests: pytest.Subtests, settings: Settings
) -> None:
    none = {name: re.sub(r"[A-Za-z0-9]{8}\Z", "x" * 8, value) for name, value in theirs.items()}
    none["fine_tuned_model_checkpoint"] += "0"  # ends in a short number
    owner = {"authorization": f"Bearer {theirs['key']}"}
    tried = 0
    for method, path in sorted(routes(create_app(settings)), reverse=True):  # DELETE comes last
        if "{" not in path or ELSEWHERE.fullmatch(path):
            continue
        with subtests.test(f"{method} {path}"):
            tried += 1
            answers = [http.request(method, filled(path, ids)) for ids in (theirs, none)]
            assert [answer.status_code for answer in answers] == [404, 404]
            first, second = (answer.text for answer in answers)
            for name, value in theirs.items():
                first = first.replace(value, none[name])
            assert first == second
            assert SECURITY_HEADERS.items() <= answers[0].headers.items()
            if method == "GET":
                seen = httpx.get(server_url + filled(path, theirs), headers=owner)
                assert seen.status_code == 200, seen.text
                assert SECURITY_HEADERS.keys() <= seen.headers.keys()
    assert tried >= 22


def test_lists_hold_only_the_callers_rows(http: httpx.Client, theirs: dict[str, str]) -> None:
    for path in (*sorted(LISTS), "/v1/fine_tuning/jobs?metadata[a]=1"):
        assert http.get(path).json()["data"] == []
    assert http.get(f"/v1/files?after={theirs['file_id']}").json()["data"] == []
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["cherry-nano"]


@pytest.mark.parametrize("field", ["training_file", "validation_file", "model"])
def test_anothers_id_in_a_body_answers_like_none(
    http: httpx.Client, db: Session, tenant: Tenant, theirs: dict[str, str], field: str
) -> None:
    own = make_file(db, tenant.project_id).id
    db.commit()
    right: dict[str, Any] = {
        "model": "cherry-nano",
        "training_file": own,
        "validation_file": own,
        "method": {"type": "reinforcement", "reinforcement": {"grader": GRADER}},
    }
    their_id = theirs["model" if field == "model" else "file_id"]
    for path in ("/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/preflight"):
        answers = [http.post(path, json=right | {field: value}) for value in (their_id, "none")]
        assert answers[0].status_code == answers[1].status_code >= 400
        assert answers[0].text.replace(their_id, "none") == answers[1].text


def test_the_default_tenant_is_made_once(db: Session) -> None:
    first, second = tenants.ensure_default_tenant(db), tenants.ensure_default_tenant(db)
    assert first.id == second.id


def test_only_digests_are_stored(db: Session, tenant: Tenant) -> None:
    new = tenants.create_key(db, tenant.project_id, "ci")
    assert new.plaintext.startswith("sk-cherry-")
    assert len(new.plaintext) == len("sk-cherry-") + 38
    assert new.plaintext not in str(
        {column.name: getattr(new.row, column.name) for column in new.row.__table__.columns}
    )
    assert [key.name for key in tenants.list_keys(db, tenant.project_id)] == ["test key", "ci"]


def test_every_route_is_in_the_matrix_or_names_no_object(settings: Settings, theirs: dict[str, str]) -> None:
    """A new route comes with an entry: its ids in `theirs`, or its path in `NO_ID`."""
    for _, path in routes(create_app(settings)):
        if not ELSEWHERE.fullmatch(path):
            ids = set(re.findall(r"\{(\w+)", path))
            assert ids <= theirs.keys(), f"{path}: make one of another project in `theirs`"
            assert ids or path in NO_ID, f"{path}: is there nothing of a tenant's in it?"
