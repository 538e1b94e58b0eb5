"""Signing in to the dashboard: what the cookie holds, who may send the form, and how often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event

import httpx2 as httpx
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app.dashboard.sign_in import COOKIE, WRONG_KEYS_PER_MINUTE
from app.tenants import service as tenants
from app.tenants.models import DashboardSession, Project
from tests.factories import Tenant
from workers.jobs.sweep import sweep


def sign_in(server_url: str, key: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{server_url}/dashboard/login", data={"key": key}, headers=headers)


@pytest.fixture
def token(server_url: str, tenant: Tenant) -> str:
    return sign_in(server_url, tenant.key).cookies[COOKIE]


def shown(server_url: str, token: str) -> int:
    return httpx.get(f"{server_url}/dashboard", cookies={COOKIE: token}).status_code


def test_the_cookie_is_no_key_and_the_database_holds_its_digest_only(
    server_url: str, tenant: Tenant, token: str, db: Session
) -> None:
    assert tenant.key not in token
    assert len(token) >= 43, "256 bits"
    assert shown(server_url, token) == 200
    as_key = httpx.get(f"{server_url}/v1/files", headers={"authorization": f"Bearer {token}"})
    assert as_key.status_code == 401
    stored = db.scalars(text("SELECT string_agg(s::text, ' ') FROM dashboard_sessions s")).one()
    assert token not in stored
    assert token.encode().hex() not in stored


def test_a_key_in_the_cookie_opens_nothing(server_url: str, tenant: Tenant) -> None:
    for cookie in (tenant.key, "x", "%00", "x" * 3000):
        assert shown(server_url, cookie) == 303
    assert httpx.get(f"{server_url}/dashboard", cookies={"cherry_key": tenant.key}).status_code == 303


def test_a_revoked_key_and_an_archived_project_end_the_session(
    server_url: str, tenant: Tenant, token: str, db: Session
) -> None:
    tenants.revoke_key(db, tenant.project_id, tenant.key_id)
    db.commit()
    assert shown(server_url, token) == 303
    other = tenants.create_key(db, tenant.project_id, "other").plaintext
    db.commit()
    second = sign_in(server_url, other).cookies[COOKIE]
    assert shown(server_url, second) == 200
    db.execute(update(Project).where(Project.id == tenant.project_id).values(archived_at=datetime.now(UTC)))
    db.commit()
    assert shown(server_url, second) == 303


def test_a_session_ends_by_itself_and_is_swept(server_url: str, token: str, db: Session) -> None:
    (session,) = db.scalars(select(DashboardSession)).all()
    assert session.expires_at - session.created_at == timedelta(hours=12)
    session.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.commit()
    assert shown(server_url, token) == 303
    sweep(Event())
    db.expire_all()
    assert db.scalars(select(DashboardSession)).all() == []


def test_signing_out_or_in_again_ends_the_session_in_the_database(server_url: str, tenant: Tenant) -> None:
    with httpx.Client(base_url=server_url) as browser:
        first, second = (
            browser.post("/dashboard/login", data={"key": tenant.key}).cookies[COOKIE] for _ in range(2)
        )
        assert first != second
        assert (shown(server_url, first), shown(server_url, second)) == (303, 200)
        browser.post("/dashboard/logout")
        assert shown(server_url, second) == 303


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "http://[::1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


def test_a_form_of_another_site_is_refused(
    server_url: str, tenant: Tenant, token: str, subtests: pytest.Subtests
) -> None:
    for headers in FOREIGN:
        with subtests.test(str(headers)):
            assert sign_in(server_url, tenant.key, **headers).status_code == 403
            out = httpx.post(f"{server_url}/dashboard/logout", cookies={COOKIE: token}, headers=headers)
            assert out.status_code == 403
    assert shown(server_url, token) == 200
    for headers in ({"origin": server_url}, {"sec-fetch-site": "same-origin", "origin": "null"}, {}):
        assert sign_in(server_url, tenant.key, **headers).status_code == 303


def test_browsers_are_let_say_where_a_form_comes_from(server_url: str, tenant: Tenant, token: str) -> None:
    """With `no-referrer` they send `Origin: null`, as the Fetch standard has it."""
    for path in ("/dashboard/login", "/dashboard"):
        page = httpx.get(server_url + path, cookies={COOKIE: token})
        assert page.headers["referrer-policy"] == "same-origin"


def test_wrong_keys_are_limited_by_address_and_right_ones_are_not(server_url: str, tenant: Tenant) -> None:
    from_elsewhere = httpx.HTTPTransport(local_address="127.0.0.77")
    with httpx.Client(base_url=server_url, transport=from_elsewhere) as guesser:

        def attempt(key: str) -> httpx.Response:
            return guesser.post("/dashboard/login", data={"key": key})

        assert {attempt(tenant.key).status_code for _ in range(2 * WRONG_KEYS_PER_MINUTE)} == {303}
        wrong = [attempt("sk-cherry-wrong") for _ in range(WRONG_KEYS_PER_MINUTE + 1)]
        assert [each.status_code for each in wrong] == [401] * WRONG_KEYS_PER_MINUTE + [429]
        assert 1 <= int(wrong[-1].headers["retry-after"]) <= 6
        assert "Too many wrong keys" in wrong[-1].text
        assert attempt(tenant.key).status_code == 429, "or it would tell which key is right"
    assert sign_in(server_url, tenant.key).status_code == 303
