"""Lists are walked to their end and each item comes once, whatever is deleted on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from app.files.models import File
from app.left_places import LeftPlace
from app.tenants.models import Project
from app.tenants.service import create_project
from app.webhooks.models import WebhookDelivery
from tests.app.webhooks.webhook_rows import emit
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_feedback,
    make_file,
    make_job,
    make_permission,
    make_stored_chat,
    make_tenant,
    make_webhook_endpoint,
)
from tests.shared_data import shared_path
from workers.jobs import sweep

N = 7


def walk(client: httpx.Client, path: str, **query: str) -> Iterator[dict[str, Any]]:
    """Goes through a list as the official client does, two items a page."""
    after: dict[str, str] = {}
    for _ in range(4 * N):
        page = client.get(path, params={"limit": "2", **query, **after}).raise_for_status().json()
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"after": page["data"][-1]["id"]}
    pytest.fail("the list never ends")


def names_seen_while_deleting(
    client: httpx.Client, path: str, forget: Callable[[str], Any], **query: str
) -> Counter[str]:
    """How often each item comes to somebody who deletes each as it comes."""
    seen: Counter[str] = Counter()
    for item in walk(client, path, **query):
        seen[item["id"]] += 1
        forget(item["id"])
    return seen


def test_files(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    def forget(file_id: str) -> None:
        http.delete(f"/v1/files/{file_id}").raise_for_status()

    for order in ("asc", "desc"):
        made = [make_file(db, tenant.project_id).id for _ in range(N)]
        db.commit()
        assert names_seen_while_deleting(http, "/v1/files", forget, order=order) == Counter(made)
        assert http.get("/v1/files").json()["data"] == []


def test_files_that_expire_before_and_after_the_sweep(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    made = [make_file(db, tenant.project_id).id for _ in range(N)]
    db.commit()

    def expire(file_id: str) -> None:
        over = datetime.now(UTC) - timedelta(seconds=1)
        db.execute(update(File).where(File.id == file_id).values(expires_at=over))
        db.commit()
        if made.index(file_id) % 2:
            sweep.sweep(Event())

    assert names_seen_while_deleting(http, "/v1/files", expire, order="asc") == Counter(made)


def test_webhook_endpoints(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    made = [make_webhook_endpoint(db, tenant.project_id).id for _ in range(N)]
    db.commit()

    def forget(endpoint_id: str) -> None:
        http.delete(f"/v1/webhook_endpoints/{endpoint_id}").raise_for_status()

    assert names_seen_while_deleting(http, "/v1/webhook_endpoints", forget) == Counter(made)


def test_deliveries_that_are_purged(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    endpoint = make_webhook_endpoint(db, tenant.project_id)
    made = [delivery.id for delivery in emit(db, tenant, *(f"ftjob-{number}" for number in range(N)))]

    def purge(delivery_id: str) -> None:
        db.execute(delete(WebhookDelivery).where(WebhookDelivery.id == delivery_id))
        db.commit()

    path = f"/v1/webhook_endpoints/{endpoint.id}/deliveries"
    assert names_seen_while_deleting(http, path, purge) == Counter(made)


def test_service_accounts_and_keys(admin: httpx.Client, tenant: Tenant) -> None:
    project = f"/v1/organization/projects/{tenant.project_id}"
    made = [admin.post(f"{project}/service_accounts", json={"name": "x"}).json()["id"] for _ in range(N)]

    def forget(kind: str) -> Callable[[str], None]:
        return lambda gone: admin.delete(f"{project}/{kind}/{gone}").raise_for_status() and None

    keys = Counter(item["id"] for item in walk(admin, f"{project}/api_keys"))
    assert len(keys) == N + 1
    assert names_seen_while_deleting(admin, f"{project}/api_keys", forget("api_keys")) == keys
    accounts = names_seen_while_deleting(admin, f"{project}/service_accounts", forget("service_accounts"))
    assert accounts == Counter(made)


def test_projects_that_are_erased(admin: httpx.Client, db: Session, tenant: Tenant) -> None:
    made = [create_project(db, tenant.organization_id, "x").id for _ in range(N)]
    db.commit()

    def forget(project_id: str) -> None:
        if project_id in made:
            db.execute(delete(Project).where(Project.id == project_id))
            db.commit()

    seen = names_seen_while_deleting(admin, "/v1/organization/projects", forget)
    assert seen == Counter([tenant.project_id, *made])


def test_chat_completions(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    made = [make_stored_chat(db, tenant.project_id).id for _ in range(N)]
    db.commit()

    def forget(completion_id: str) -> None:
        http.delete(f"/v1/chat/completions/{completion_id}").raise_for_status()

    for order in ("asc", "desc"):
        seen = names_seen_while_deleting(http, "/v1/chat/completions", forget, order=order)
        assert seen == Counter(made if order == "asc" else [])


def test_feedback(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    completion = make_stored_chat(db, tenant.project_id)
    made = [make_feedback(db, completion).id for _ in range(N)]
    db.commit()

    def forget(feedback_id: str) -> None:
        http.delete(f"/v1/feedback/{feedback_id}").raise_for_status()

    assert names_seen_while_deleting(http, "/v1/feedback", forget) == Counter(made)


def test_permissions(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    checkpoint = make_checkpoint(db, make_job(db, tenant.project_id), 1)
    made = [make_permission(db, checkpoint, make_tenant(db).project_id).id for _ in range(N)]
    db.commit()
    path = f"/v1/fine_tuning/checkpoints/{checkpoint.model_name}/permissions"

    def forget(permission_id: str) -> None:
        http.delete(f"{path}/{permission_id}").raise_for_status()

    assert names_seen_while_deleting(http, path, forget) == Counter(made)


def test_anothers_place_is_as_one_that_never_was(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    other = make_tenant(db, "other")
    theirs = make_file(db, other.project_id)
    db.commit()
    mine = [make_file(db, tenant.project_id).id for _ in range(3)]
    db.delete(theirs)
    db.commit()
    for cursor in (theirs.id, "file-none", f"{theirs.id} ", "x y"):
        shown = http.get("/v1/files", params={"after": cursor}).json()["data"]
        assert {item["id"] for item in shown} == set(mine)


def test_a_place_is_kept_for_a_day_and_holds_nothing_of_the_row(db: Session, tenant: Tenant) -> None:
    old, new = make_file(db, tenant.project_id), make_file(db, tenant.project_id)
    db.commit()
    for gone in (old, new):
        db.delete(gone)
        db.flush()
        if gone is old:
            db.execute(update(LeftPlace).values(left_at=datetime.now(UTC) - timedelta(hours=25)))
    db.commit()
    told = db.scalars(text("SELECT string_agg(p::text, ' ') FROM left_places p")).one()
    assert not any(secret in told for secret in (old.id, new.id, tenant.project_id, "train.jsonl"))
    assert len(db.scalars(select(LeftPlace)).all()) == 2
    sweep.sweep(Event())
    db.expire_all()
    (left,) = db.scalars(select(LeftPlace)).all()
    assert left.created_at == new.created_at


def test_every_list_by_age_leaves_places(db: Session) -> None:
    """What is paged through `Owned` is deleted in one place or another: the project may be erased."""
    triggers = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'leave_place'"
    assert set(db.scalars(text(triggers))) == {
        "admin_api_keys",
        "api_keys",
        "chat_completions",
        "checkpoint_permissions",
        "eval_runs",
        "evals",
        "datasets",
        "feedback",
        "files",
        "jobs",
        "projects",
        "regrades",
        "service_accounts",
        "webhook_deliveries",
        "webhook_endpoints",
    }


def test_the_cases_that_were_found(server_url: str, tenant: Tenant, db: Session) -> None:
    for case in json.loads(shared_path("cases/api/api-page-after-deleted.json").read_text())["cases"]:
        for each in range(12):
            make_file(db, tenant.project_id, b"x", purpose="user_data", name=f"p{each}.jsonl")
            db.commit()
        seen: list[str] = []
        with openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key, max_retries=0) as client:
            for file in client.files.list(purpose="user_data", limit=case["limit"], order="asc"):
                seen.append(file.filename)
                named = case["delete"]
                if file.filename in named if isinstance(named, list) else len(seen) % 3 == 0:
                    client.files.delete(file.id)
                assert len(seen) <= 40
        assert seen == [f"p{each}.jsonl" for each in range(case["expected"])]
        db.execute(delete(File))
        db.commit()
