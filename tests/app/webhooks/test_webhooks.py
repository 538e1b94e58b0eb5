"""Webhook endpoints over the official client: made, changed, rotated, tried, and only their owner's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import get_args, get_type_hints

import httpx2 as httpx
import openai
import pytest
from openai.types.webhooks.webhook_test_params import WebhookTestParams
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.settings import get_settings
from app.webhooks.event_types import EVENT_TYPES, OpenAIEventType
from app.webhooks.models import WebhookEndpoint
from app.webhooks.service import MAX_ENDPOINTS
from tests.app.answers import error_of
from tests.app.webhooks.receivers import Receiver, receiver

PATH = "/v1/webhook_endpoints"
SUCCEEDED = "fine_tuning.job.succeeded"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, db: Session) -> Iterator[Receiver]:
    """A receiver on this machine, which the operator allows."""
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW", "127.0.0.1")
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW_HTTP", "true")
    get_settings.cache_clear()
    with receiver() as made:
        yield made


def body(url: str, *types: str) -> dict[str, object]:
    return {"name": "mine", "url": url, "event_types": list(types) or [SUCCEEDED]}


def test_an_endpoint_lives_through_the_official_client(client: openai.OpenAI, hook: Receiver) -> None:
    made = client.webhooks.create(name="mine", url=hook.url, event_types=[SUCCEEDED, "eval.run.canceled"])
    assert made.id.startswith("whe_")
    assert len(base64.b64decode(made.signing_secret.removeprefix("whsec_"), validate=True)) == 32
    got = client.webhooks.retrieve(made.id)
    assert (got.name, got.url, got.event_types) == ("mine", hook.url, [SUCCEEDED, "eval.run.canceled"])
    assert got.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    assert not hasattr(got, "signing_secret")
    changed = client.webhooks.update(made.id, name="other", event_types=["batch.failed"])
    assert (changed.name, changed.url, changed.event_types) == ("other", hook.url, ["batch.failed"])
    deleted = client.webhooks.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "webhook_endpoint.deleted")
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_lists_are_newest_first_and_paged(client: openai.OpenAI, hook: Receiver) -> None:
    made = [client.webhooks.create(name=str(n), url=hook.url, event_types=[SUCCEEDED]).id for n in range(5)]
    assert [each.id for each in client.webhooks.list(limit=2)] == made[::-1]
    assert client.webhooks.list(limit=0).data == []
    assert [each.id for each in client.webhooks.list(after="whe_unknown")] == made[::-1]
    first = client.webhooks.list(limit=2)
    assert (first.has_more, [each.id for each in first.data]) == (True, [made[4], made[3]])


def test_event_types_hold_all_that_the_client_knows_and_ours(client: openai.OpenAI) -> None:
    listed = client.webhooks.event_types.list().data
    assert tuple(listed) == EVENT_TYPES
    known = get_args(get_type_hints(WebhookTestParams)["event_type"])
    assert set(known) == set(get_args(OpenAIEventType))
    ours = set(listed) - set(get_args(OpenAIEventType))
    assert ours == {"fine_tuning.job.paused", "fine_tuning.checkpoint.created"}


def test_updated_at_moves_with_changes_only(http: httpx.Client, hook: Receiver, db: Session) -> None:
    made = http.post(PATH, json=body(hook.url)).json()
    db.execute(text("UPDATE webhook_endpoints SET updated_at = to_timestamp(1000)"))
    db.commit()
    url = f"{PATH}/{made['id']}"
    for unchanged in ({}, {"name": "mine"}, {"url": hook.url, "event_types": [SUCCEEDED]}, {"name": None}):
        assert http.post(url, json=unchanged).json()["updated_at"] == 1000
    http.post(f"{url}/test", json={"event_type": SUCCEEDED})
    assert http.get(url).json()["updated_at"] == 1000
    assert http.post(url, json={"name": "new"}).json()["updated_at"] > 1000


def test_secrets_are_stored_sealed(http: httpx.Client, hook: Receiver, db: Session) -> None:
    secret = http.post(PATH, json=body(hook.url)).json()["signing_secret"]
    row = db.scalars(select(WebhookEndpoint)).one()
    stored = str({column.name: getattr(row, column.name) for column in row.__table__.columns})
    assert secret not in stored
    assert base64.b64decode(secret.removeprefix("whsec_")) not in row.secret


def test_a_test_event_is_signed_with_every_secret_that_is_valid(
    client: openai.OpenAI, hook: Receiver
) -> None:
    first = client.webhooks.create(name="mine", url=hook.url, event_types=[SUCCEEDED])

    def verifies(secret: str) -> bool:
        hook.received.clear()
        result = client.webhooks.test(first.id, event_type=SUCCEEDED)
        assert (result.status_code, result.success, result.webhook_endpoint_id) == (200, True, first.id)
        came = hook.received[0]
        try:
            event = client.webhooks.unwrap(came.body, came.headers, secret=secret)
        except openai.InvalidWebhookSignatureError:
            return False
        assert event.type == SUCCEEDED
        return True

    assert verifies(first.signing_secret)
    second = client.webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    assert verifies(first.signing_secret)
    assert verifies(second.signing_secret)
    third = client.webhooks.rotate_secret(first.id)
    assert not verifies(first.signing_secret)
    assert not verifies(second.signing_secret)
    assert verifies(third.signing_secret)


def test_an_old_secret_signs_for_24_hours(client: openai.OpenAI, hook: Receiver, db: Session) -> None:
    first = client.webhooks.create(name="mine", url=hook.url, event_types=[SUCCEEDED])
    client.webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    left = text("SELECT old_secret_expires_at - now() BETWEEN '23:59' AND '24:00' FROM webhook_endpoints")
    assert db.scalars(left).one()
    db.execute(text("UPDATE webhook_endpoints SET old_secret_expires_at = now() - interval '1 second'"))
    db.commit()
    client.webhooks.test(first.id, event_type=SUCCEEDED)
    came = hook.received[0]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(came.body, came.headers, secret=first.signing_secret)


def test_a_test_tells_the_status_that_came_and_follows_no_redirect(
    http: httpx.Client, hook: Receiver
) -> None:
    made = http.post(PATH, json=body(hook.url)).json()
    url = f"{PATH}/{made['id']}/test"
    for status in (204, 302, 404, 500):
        hook.answer = lambda _, status=status: (status, {"location": hook.url}, b"")  # type: ignore[misc]
        answer = http.post(url, json={"event_type": SUCCEEDED})
        assert (answer.status_code, answer.json()["status_code"]) == (200, status)
    assert len(hook.received) == 4
    hook.answer = lambda _: None
    refused = http.post(url, json={"event_type": SUCCEEDED})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "url")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://169.254.169.254/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "http://1.1.1.1/",
        "https://1.1.1.1:22/",
        "https://u:p@1.1.1.1/",
        "https://no-such-name.invalid/",
        "not a url",
        "https://",
    ],
)
def test_private_targets_are_refused_when_made_and_when_changed(http: httpx.Client, url: str) -> None:
    answers = [http.post(PATH, json=body(url))]
    made = http.post(PATH, json=body("https://1.1.1.1/")).json()
    answers.append(http.post(f"{PATH}/{made['id']}", json={"url": url}))
    for answer in answers:
        error = error_of(answer)
        assert (answer.status_code, error["param"], error["code"]) == (400, "url", "invalid_value")


def test_a_url_that_became_private_is_not_called(
    http: httpx.Client, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = http.post(PATH, json=body(hook.url)).json()
    monkeypatch.delenv("CHERRY_OUTBOUND_ALLOW")
    get_settings.cache_clear()
    answer = http.post(f"{PATH}/{made['id']}/test", json={"event_type": SUCCEEDED})
    assert answer.status_code == 400
    assert hook.received == []


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"event_types": []}, "invalid_value", "event_types"),
        ({"event_types": ["nothing"]}, "invalid_value", "event_types[0]"),
        ({"event_types": [SUCCEEDED] * 65}, "array_above_max_length", "event_types"),
        ({"name": ""}, "string_below_min_length", "name"),
        ({"name": "x" * 257}, "string_above_max_length", "name"),
        ({"url": None}, "invalid_type", "url"),
        ({"extra": 1}, "unknown_parameter", "extra"),
    ],
)
def test_wrong_fields_are_named(http: httpx.Client, change: dict[str, object], code: str, param: str) -> None:
    answer = http.post(PATH, json=body("https://1.1.1.1/") | change)
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["param"]) == (400, code, param)


def test_a_project_has_so_many_endpoints_and_no_more(http: httpx.Client) -> None:
    answers = [http.post(PATH, json=body("https://1.1.1.1/")).status_code for _ in range(MAX_ENDPOINTS + 1)]
    assert answers == [200] * MAX_ENDPOINTS + [400]


def test_without_a_secret_key_endpoints_are_refused(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHERRY_SECRET_KEY")
    get_settings.cache_clear()
    answer = http.post(PATH, json=body("https://1.1.1.1/"))
    assert (answer.status_code, error_of(answer)["code"]) == (400, "webhooks_not_configured")


def test_rotation_takes_an_empty_body(http: httpx.Client) -> None:
    made = http.post(PATH, json=body("https://1.1.1.1/")).json()
    answer = http.post(f"{PATH}/{made['id']}/rotate_secret", headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["signing_secret"] != made["signing_secret"]
