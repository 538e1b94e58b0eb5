"""Retention and erasure by project: what goes, what stays, and the record of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.chat.models import StoredChat
from app.cli.main import cli
from app.cli.output import CliError
from app.erasures import service as erasures
from app.erasures.models import Erasure
from app.feedback.models import Feedback
from app.files.models import File
from app.idempotency.models import IdempotencyKey
from app.responses.models import StoredResponse
from app.settings import Settings, get_settings
from app.tenants import retention
from app.tenants.models import Project
from tests.app.answers import error_of
from tests.factories import (
    Tenant,
    make_dataset,
    make_feedback,
    make_file,
    make_job,
    make_source,
    make_stored_chat,
    make_stored_response,
    make_tenant,
)
from workers.jobs.sweep import sweep

ERASE = "/v1/erasures"
DAY = 86400


def left(db: Session, project_id: str) -> dict[str, int]:
    """How much is stored of a project."""
    tables: dict[str, Any] = {"chats": StoredChat, "responses": StoredResponse, "feedback": Feedback}
    return {
        name: db.scalars(select(func.count()).select_from(t).where(t.project_id == project_id)).one()
        for name, t in tables.items()
    }


def test_everything_of_a_project_goes_and_nothing_of_another(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    other = make_tenant(db, "other")
    for project_id in (tenant.project_id, other.project_id):
        make_feedback(db, make_stored_chat(db, project_id))
        make_feedback(db, make_stored_chat(db, project_id))
        make_stored_response(db, project_id)
    db.commit()
    done = http.post(ERASE, json={"all": True}).json()
    assert done["counts"] == {
        "chat_completions": 2,
        "responses": 1,
        "feedback": 2,
        "kept_replies": 0,
        "files": 0,
    }
    assert (done["cause"], done["requested_by"], done["filter"]) == ("request", tenant.key_id, {})
    assert left(db, tenant.project_id) == {"chats": 0, "responses": 0, "feedback": 0}
    assert left(db, other.project_id) == {"chats": 2, "responses": 1, "feedback": 2}
    assert http.get(f"{ERASE}/{done['id']}").json() == done
    assert http.get(ERASE).json()["data"] == [done]


@pytest.mark.parametrize(
    ("wanted", "gone"),
    [
        pytest.param({"metadata": {"user": "ann"}}, {"ann", "ann-response"}, id="of-a-person"),
        pytest.param({"metadata": {"user": "ann"}, "model": "m"}, {"ann-response"}, id="all-must-fit"),
        pytest.param({"model": "cherry-nano"}, {"ann", "bob", "old"}, id="of-a-model"),
        pytest.param({"created_before": 2 * DAY}, {"old"}, id="before"),
        pytest.param({"created_after": 2 * DAY}, {"ann", "bob", "ann-response"}, id="after"),
        pytest.param({"metadata": {"user": "eve"}}, set(), id="of-nobody"),
    ],
)
def test_what_fits_all_that_is_given_goes(
    http: httpx.Client, db: Session, tenant: Tenant, wanted: dict[str, Any], gone: set[str]
) -> None:
    names = {
        make_stored_chat(db, tenant.project_id, metadata={"user": user}).id: user for user in ("ann", "bob")
    }
    old = make_stored_chat(db, tenant.project_id)
    old.created_at = datetime.fromtimestamp(DAY, UTC)
    response = make_stored_response(db, tenant.project_id, model="m")
    response.response = {**response.response, "metadata": {"user": "ann", "more": "x"}}
    names |= {old.id: "old", response.id: "ann-response"}
    db.commit()
    done = http.post(ERASE, json=wanted).json()
    there = {*db.scalars(select(StoredChat.id)), *db.scalars(select(StoredResponse.id))}
    assert {name for row_id, name in names.items() if row_id not in there} == gone
    assert done["counts"]["chat_completions"] + done["counts"]["responses"] == len(gone)


@pytest.mark.parametrize(
    "body", [{}, {"all": False}, {"all": True, "model": "m"}, {"datasets": "delete"}], ids=str
)
def test_what_shall_go_must_be_said(
    http: httpx.Client, db: Session, tenant: Tenant, body: dict[str, Any]
) -> None:
    make_stored_chat(db, tenant.project_id)
    db.commit()
    refused = http.post(ERASE, json=body)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "all")
    assert left(db, tenant.project_id)["chats"] == 1


def test_the_record_holds_no_value_that_may_name_a_person(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    chat = make_stored_chat(db, tenant.project_id, metadata={"user": "ann@x"})
    db.commit()
    by_person = http.post(ERASE, json={"metadata": {"user": "ann@x"}, "model": "cherry-nano"}).json()
    assert by_person["filter"] == {"metadata": ["user"], "model": "cherry-nano"}
    assert http.post(ERASE, json={"ids": [chat.id]}).json()["filter"] == {"ids": 1}
    rows = db.scalars(select(Erasure)).all()
    assert len(rows) == 2
    assert not any("ann@x" in repr(vars(row)) for row in rows)


def test_what_is_kept_for_an_idempotency_key_goes_too(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    gone, stays = (make_stored_chat(db, tenant.project_id) for _ in range(2))
    db.commit()
    for chat in (gone, stays):
        body = {"completion_id": chat.id, "correction": "secret"}
        http.post("/v1/feedback", json=body, headers={"idempotency-key": chat.id}).raise_for_status()
    done = http.post(ERASE, json={"ids": [gone.id]}).json()
    assert (done["counts"]["chat_completions"], done["counts"]["kept_replies"]) == (1, 1)
    assert list(db.scalars(select(IdempotencyKey.key))) == [stays.id]


def test_data_sets_made_of_it_are_told_and_their_files_go_if_asked(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    chat, other = (make_stored_chat(db, tenant.project_id) for _ in range(2))
    file, untouched = make_file(db, tenant.project_id), make_file(db, tenant.project_id)
    dataset = make_dataset(db, tenant.project_id, status="succeeded", file_id=file.id)
    for line in (1, 2):
        make_source(db, dataset, chat.id, line)
    elsewhere = make_dataset(db, tenant.project_id, status="succeeded", file_id=untouched.id)
    make_source(db, elsewhere, other.id)
    job = make_job(
        db, tenant.project_id, status="succeeded", training_file=file.id, fine_tuned_model="ft:m:a::1"
    )
    db.commit()
    told = http.post(ERASE, json={"ids": [chat.id]}).json()["datasets"]
    expected = {
        "id": dataset.id,
        "file_id": file.id,
        "rows": 2,
        "file_deleted": False,
        "jobs": [job.id],
        "models": ["ft:m:a::1"],
    }
    assert told == [expected]
    again = make_stored_chat(db, tenant.project_id)
    make_source(db, dataset, again.id, 3)
    db.commit()
    done = http.post(ERASE, json={"ids": [again.id], "datasets": "delete"}).json()
    assert done["datasets"] == [expected | {"rows": 1, "file_deleted": True}]
    assert done["counts"]["files"] == 1
    assert list(db.scalars(select(File.id))) == [untouched.id]


def test_nothing_goes_while_a_job_uses_a_file_that_shall_go(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    chat, file = make_stored_chat(db, tenant.project_id), make_file(db, tenant.project_id)
    dataset = make_dataset(db, tenant.project_id, status="succeeded", file_id=file.id)
    make_source(db, dataset, chat.id)
    job = make_job(db, tenant.project_id, status="running", training_file=file.id)
    db.commit()
    refused = http.post(ERASE, json={"ids": [chat.id], "datasets": "delete"})
    assert refused.status_code == 400
    assert job.id in error_of(refused)["message"]
    assert left(db, tenant.project_id)["chats"] == 1
    assert http.get(ERASE).json()["data"] == []


def test_what_retention_brings_is_noted_once_a_day(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    other = make_tenant(db, "other")
    for project_id in (tenant.project_id, tenant.project_id, other.project_id):
        chat = make_stored_chat(db, project_id, keep=timedelta(seconds=-1))
        make_feedback(db, chat)
        make_feedback(db, chat)
        make_stored_response(db, project_id).expires_at -= timedelta(hours=2)
    kept = make_stored_chat(db, tenant.project_id)
    db.commit()
    sweep(Event(), most=1)
    (record,) = http.get(ERASE).json()["data"]
    assert record["counts"] == {"chat_completions": 2, "responses": 2, "feedback": 4}
    assert (record["cause"], record["day"]) == ("retention", datetime.now(UTC).date().isoformat())
    assert list(db.scalars(select(StoredChat.id))) == [kept.id]
    assert db.scalars(select(func.count()).select_from(Erasure)).one() == 2


def retention_of(tenant: Tenant) -> str:
    return f"/v1/organization/projects/{tenant.project_id}/completions_retention"


def test_a_project_has_a_retention_of_its_own(
    admin: httpx.Client, db: Session, tenant: Tenant, settings: Settings
) -> None:
    chat, brief = (make_stored_chat(db, tenant.project_id, keep=timedelta(days=d)) for d in (30, 0.5))
    response = make_stored_response(db, tenant.project_id)
    response.expires_at += timedelta(days=30)
    elsewhere = make_stored_chat(db, make_tenant(db, "other").project_id, keep=timedelta(days=30))
    db.commit()
    default = int(settings.completions_kept.total_seconds())
    shown = {"object": "project.completions_retention", "project_id": tenant.project_id}
    assert admin.get(retention_of(tenant)).json() == shown | {"seconds": None, "effective_seconds": default}
    changed = admin.post(retention_of(tenant), json={"seconds": DAY}).json()
    assert changed == shown | {"seconds": DAY, "effective_seconds": DAY}
    db.expire_all()
    assert chat.expires_at - chat.created_at == timedelta(days=1)
    assert response.expires_at - response.created_at == timedelta(days=1)
    assert brief.expires_at - brief.created_at == timedelta(days=0.5), "never later than it was to go"
    assert elsewhere.expires_at - elsewhere.created_at == timedelta(days=30)
    assert retention.kept_by(db, tenant.project_id, timedelta(days=30)) == timedelta(days=1)
    db.rollback()
    admin.post(retention_of(tenant), json={"seconds": None}).raise_for_status()
    db.expire_all()
    assert retention.kept_by(db, tenant.project_id, timedelta(days=30)) == timedelta(days=30)
    assert chat.expires_at - chat.created_at == timedelta(days=1)


@pytest.mark.parametrize("seconds", [59, 10**12, 1.5, "1"])
def test_a_retention_out_of_bounds_is_refused(admin: httpx.Client, tenant: Tenant, seconds: Any) -> None:
    refused = admin.post(retention_of(tenant), json={"seconds": seconds})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "seconds")


def test_retention_takes_an_admin_key_and_a_project_of_its_own(
    http: httpx.Client, admin: httpx.Client, db: Session, tenant: Tenant
) -> None:
    other = make_tenant(db, "other")
    db.commit()
    assert http.get(retention_of(tenant)).status_code == 403
    assert http.get("/v1/organization/erasures").status_code == 403
    for ask in (admin.get, admin.post):
        assert ask(retention_of(other)).status_code == 404


def test_an_admin_sees_the_records_of_all_projects(
    http: httpx.Client, admin: httpx.Client, tenant: Tenant
) -> None:
    done = http.post(ERASE, json={"all": True}).json()
    assert admin.get("/v1/organization/erasures").json()["data"] == [done]


def test_nothing_is_stored_under_the_rule_of_before(db: Session, tenant: Tenant, settings: Settings) -> None:
    """Who changes the retention waits for those who are storing, and changes what they have stored."""
    from threading import Thread

    from app.db import unit_of_work

    kept = retention.kept_by(db, tenant.project_id, timedelta(days=30))
    stored = make_stored_chat(db, tenant.project_id, keep=kept)

    def change() -> None:
        with unit_of_work() as other:
            project = other.get_one(Project, tenant.project_id)
            erasures.set_retention(other, project, timedelta(days=1), settings.completions_kept)

    changing = Thread(target=change)
    changing.start()
    changing.join(0.3)
    assert changing.is_alive(), "it waits for the transaction that stores"
    db.commit()
    changing.join(10)
    db.refresh(stored)
    assert stored.expires_at - stored.created_at == timedelta(days=1)


def test_the_operator_sets_it_on_the_command_line(db: Session, tenant: Tenant, settings: Settings) -> None:
    def run(*arguments: str) -> Any:
        data = ("--data", str(settings.data_dir))
        return CliRunner().invoke(cli, ["projects", "retention", *arguments, "--json", *data])

    assert json.loads(run(tenant.project_id).output)["seconds"] is None
    assert json.loads(run(tenant.project_id, "--days", "7").output)["seconds"] == 7 * DAY
    db.expire_all()
    assert db.get_one(Project, tenant.project_id).completions_kept == timedelta(days=7)
    shown = json.loads(run(tenant.project_id, "--default").output)
    assert shown["effective_seconds"] == get_settings().completions_kept.total_seconds()
    for bad in (("--days", "0"), ("--days", "1e9"), ("--days", "1", "--default")):
        assert isinstance(run(tenant.project_id, *bad).exception, CliError)
    assert "there is no project proj_none" in str(run("proj_none").exception)
