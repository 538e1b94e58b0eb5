"""Files, models, keys, webhooks, evals and settings: what the pages show, what they do, and for whom."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboard.library.described import described
from app.dashboard.sign_in import COOKIE
from app.files.models import File
from app.models.models import Model
from app.settings import Settings, setting_names
from app.storage import get_storage
from app.tenants import service as tenants
from app.tenants import sessions
from app.webhooks import service as webhooks
from app.webhooks.models import WebhookDelivery
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.factories import (
    Tenant,
    make_admin_key,
    make_eval,
    make_eval_run,
    make_file,
    make_job,
    make_tenant,
    make_tuned_model,
    make_webhook_endpoint,
)

HOSTILE = "<img src=x onerror=\"document.title = 'owned'\">\u202e"
PAGES = ("files", "models", "evals", "webhooks", "settings", "settings/keys")


def signed_in(server_url: str, tenant: Tenant, db: Session) -> httpx.Client:
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    headers = {"accept": "text/html", "cookie": f"{COOKIE}={token}"}
    return httpx.Client(base_url=f"{server_url}/dashboard", headers=headers, timeout=30)


@pytest.fixture
def browser(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    with signed_in(server_url, tenant, db) as client:
        yield client


@pytest.fixture
def stranger(server_url: str, db: Session) -> Iterator[httpx.Client]:
    with signed_in(server_url, make_tenant(db, "other"), db) as client:
        yield client


def stored_file(db: Session, project_id: str, data: bytes, **columns: str) -> File:
    file = make_file(db, project_id)
    get_storage().put_bytes(file.storage_key, data)
    file.bytes = len(data)
    for name, value in columns.items():
        setattr(file, name, value)
    db.commit()
    return file


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_for_those_who_have_signed_in(
    server_url: str, browser: httpx.Client, name: str
) -> None:
    assert browser.get(f"/{name}").status_code == 200
    assert httpx.get(f"{server_url}/dashboard/{name}").status_code == 303


def test_a_file_shows_its_lines_and_what_is_wrong_with_them(
    browser: httpx.Client, db: Session, tenant: Tenant
) -> None:
    data = f'{{"a": "{HOSTILE[:4]}"}}\n\n[1]\n{{"b": \n'.encode()
    file = stored_file(db, tenant.project_id, data, filename=f"{HOSTILE}.jsonl")
    shown = browser.get(f"/files/{file.id}").text
    assert "Line 3 is JSON, but not an object." in shown
    assert "Line 4 is not JSON" in shown
    assert "&#34;a&#34;: &#34;&lt;img&#34;" in shown
    assert "<img src" not in shown
    assert "right-to-left override" in browser.get("/files").text


def test_a_file_is_downloaded_as_it_is_and_never_shown(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant
) -> None:
    file = stored_file(db, tenant.project_id, b"<script>1</script>")
    got = browser.get(f"/files/{file.id}/content")
    assert got.content == b"<script>1</script>"
    assert got.headers["content-disposition"].startswith("attachment")
    assert stranger.get(f"/files/{file.id}/content").status_code == 404
    assert stranger.get(f"/files/{file.id}").status_code == 404


def test_a_file_in_use_stays_and_the_page_says_who_uses_it(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant
) -> None:
    file = stored_file(db, tenant.project_id, b"{}\n")
    file_id = file.id
    job = make_job(db, tenant.project_id, status="running", training_file=file.id, suffix="people")
    db.commit()
    assert stranger.post(f"/files/{file.id}/delete").status_code == 404
    refused = browser.post(f"/files/{file.id}/delete")
    assert refused.status_code == 400
    assert f"is used by the unfinished job {job.id}" in refused.text
    assert "people" in refused.text
    job.status = "succeeded"
    db.commit()
    assert (
        browser.post(f"/files/{file.id}/delete", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    )
    assert db.scalars(select(File.id).where(File.id == file.id)).first()
    assert browser.post(f"/files/{file.id}/delete").status_code == 303
    db.rollback()
    assert not db.scalars(select(File.id).where(File.id == file_id)).first()


def test_only_a_tuned_model_of_the_project_is_deleted(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant
) -> None:
    tuned = make_tuned_model(db, make_job(db, tenant.project_id))
    name = tuned.name
    db.commit()
    assert name in browser.get("/models").text
    assert name not in stranger.get("/models").text
    assert stranger.post("/models/delete", data={"name": name}).status_code == 404
    refused = browser.post("/models/delete", data={"name": "cherry-nano"})
    assert refused.status_code == 403
    assert "is a base model; only fine-tuned models can be deleted" in refused.text
    assert browser.post("/models/delete", data={"name": name}).status_code == 303
    db.rollback()
    assert not db.scalars(select(Model).where(Model.name == name)).all()


def test_keys_are_an_admins_and_a_projects_key_sees_none(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant
) -> None:
    admin = make_admin_key(db, tenant.organization_id)
    db.commit()
    for wrong in ("", "sk-cherry-wrong", tenant.key):
        refused = browser.post("/settings/keys/list", data={"admin_key": wrong})
        assert refused.status_code == 403
        assert "That is no admin key" in refused.text
        assert "<table" not in refused.text
    assert stranger.post("/settings/keys/list", data={"admin_key": admin}).status_code == 403, (
        "another organization's"
    )
    shown = browser.post("/settings/keys/list", data={"admin_key": admin})
    assert "(signed in here)" in shown.text
    assert admin not in shown.text
    assert shown.headers["cache-control"] == "no-store"


def test_a_key_is_made_shown_once_and_revoked(browser: httpx.Client, db: Session, tenant: Tenant) -> None:
    admin = make_admin_key(db, tenant.organization_id)
    db.commit()
    assert (
        "Give the key a name"
        in browser.post("/settings/keys/create", data={"admin_key": admin, "name": " "}).text
    )
    made = browser.post("/settings/keys/create", data={"admin_key": admin, "name": HOSTILE}).text
    key = made.split("<code>")[1].split("</code>")[0]
    assert "<img src" not in made
    owner = tenants.find_key(db, key)
    assert owner is not None
    assert owner.project.id == tenant.project_id
    assert key not in browser.post("/settings/keys/list", data={"admin_key": admin}).text
    at = f"/settings/keys/{owner.key.id}/revoke"
    assert browser.post(at, data={"admin_key": tenant.key}).status_code == 403
    assert tenants.find_key(db, key) is not None
    assert browser.post(at, data={"admin_key": admin}).status_code == 200
    db.rollback()
    assert tenants.find_key(db, key) is None


def test_deliveries_show_their_attempts_and_what_came_back(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant, settings: Settings
) -> None:
    endpoint = make_webhook_endpoint(db, tenant.project_id)
    webhooks.emit(db, tenant.project_id, "fine_tuning.job.succeeded", "ftjob-1")
    delivery = db.scalars(select(WebhookDelivery)).one()
    delivery.attempts, delivery.last_status_code, delivery.last_error = 3, 500, "it answered with status 500"
    db.commit()
    shown = browser.get(f"/webhooks/{endpoint.id}").text
    for text in ("pending", "it answered with status 500", "fine_tuning.job.succeeded"):
        assert text in shown
    assert "whsec_..." in shown
    assert stranger.get(f"/webhooks/{endpoint.id}").status_code == 404
    assert stranger.post(f"/webhooks/{endpoint.id}/test", data={"event_type": "x"}).status_code == 404
    assert "There is no event" in browser.post(f"/webhooks/{endpoint.id}/test", data={"event_type": "x"}).text


def test_evals_lead_to_their_runs(
    browser: httpx.Client, stranger: httpx.Client, db: Session, tenant: Tenant
) -> None:
    of = make_eval(db, tenant.project_id)
    run = make_eval_run(db, of)
    db.commit()
    assert f"/dashboard/evals/{of.id}" in browser.get("/evals").text
    assert f"/dashboard/evals/{of.id}/runs/{run.id}" in browser.get(f"/evals/{of.id}").text
    assert stranger.get(f"/evals/{of.id}").status_code == 404


def test_every_setting_is_described_and_no_secret_is_shown() -> None:
    secret = "s3cret"
    settings = Settings(
        DATABASE_URL=f"postgresql://me:{secret}@host/db",
        broker_url=f"rediss://:{secret}@host",
        secret_key=secret * 8,
        sampler_token=secret,
        storage_url=f"s3://{secret}",
        vllm_options=f"--api-key {secret}",
        judge_keys={"openai": {"key": secret}},
        judges={"*": {"base_url": f"https://{secret}.example/v1", "key": "openai"}},
        _env_file=None,
    )
    shown = described(settings)
    assert {one.name for one in shown} == setting_names()
    assert secret not in repr(shown)
    by_name = {one.name: one for one in shown}
    assert by_name["CHERRY_LEASE"].value == "30 s"
    assert by_name["CHERRY_DATABASE_URL"].value == "postgresql, address hidden"
    assert by_name["CHERRY_SECRET_KEY"].value == "set, hidden"
    assert by_name["CHERRY_LEASE"].meaning.startswith("How long a silent worker keeps a job")


@pytest.mark.slow
def test_a_person_manages_keys_in_a_browser(visitor: Page, db: Session, tenant: Tenant) -> None:
    admin = make_admin_key(db, tenant.organization_id)
    db.commit()
    visitor.goto("/dashboard/settings")
    visitor.get_by_role("link", name="the keys of this project").click()
    visitor.get_by_label("Admin key").fill(admin)
    visitor.get_by_role("button", name="Show the keys").click()
    visitor.get_by_label("Name of a new key").fill("nightly")
    visitor.get_by_role("button", name="Make a key").click()
    expect(visitor.locator("#keys")).to_contain_text("never again")
    assert_fits_a_phone(visitor)
    row = visitor.get_by_role("row", name="nightly")
    row.locator("summary").click()
    row.get_by_role("button", name="Revoke this key").click()
    expect(visitor.get_by_role("row", name="nightly")).to_have_count(0)
