"""The outbox: what was written into it is sent at least once, in order, whatever fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.settings import Settings, get_settings
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.message import Outcome
from app.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookEvent
from app.webhooks.relay import Relay
from tests.app.webhooks.receivers import Received, receiver
from tests.app.webhooks.webhook_rows import SUCCEEDED, emit
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_webhook_endpoint

LEASE = timedelta(seconds=30)
TERMS = {"first_pause": timedelta(seconds=5), "retry_for": timedelta(hours=72)}
GOOD, BAD = Outcome(200, None), Outcome(500, "The receiver answered 500.")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    """Short pauses, and receivers on this machine."""
    monkeypatch.setenv("CHERRY_WEBHOOK_FIRST_RETRY", "PT0.02S")
    monkeypatch.setenv("CHERRY_WEBHOOK_TIMEOUT", "PT2S")
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW", "127.0.0.1")
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW_HTTP", "true")
    get_settings.cache_clear()
    return get_settings()


@contextmanager
def relaying(settings: Settings) -> Iterator[None]:
    stopping = threading.Event()
    relay = threading.Thread(target=Relay(settings, stopping).run)
    relay.start()
    try:
        yield
    finally:
        stopping.set()
        relay.join()


def statuses(db: Session) -> list[str]:
    db.rollback()
    return list(db.scalars(select(WebhookDelivery.status).order_by(WebhookDelivery.seq)))


def claim(db: Session, most: int = 100, lease: timedelta = LEASE) -> list[outbox.Claimed]:
    claimed = outbox.claim(db, most=most, lease=lease)
    db.commit()
    return claimed


def settle(db: Session, claimed: outbox.Claimed, outcome: Outcome) -> None:
    outbox.settle(db, claimed, outcome, **TERMS)  # type: ignore[arg-type]
    db.commit()


def due_now(db: Session) -> None:
    db.execute(update(WebhookDelivery).values(next_at=func.now(), claimed_until=None))
    db.commit()


def test_every_attempt_has_the_same_id_and_body_and_a_right_signature(
    client: openai.OpenAI, quick: Settings, db: Session, tenant: Tenant
) -> None:
    replies: list[Any] = [(500, {}, b"no"), None, (302, {"location": "/else"}, b""), (201, {}, b"ok")]
    with receiver(lambda _: replies.pop(0)) as hook:
        made = client.webhooks.create(name="x", url=hook.url, event_types=[SUCCEEDED])
        second = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        emit(db, tenant, "ftjob-1")
        with relaying(quick):
            wait_for(lambda: statuses(db) == ["delivered"], seconds=30)
        assert len(hook.received) == 4
        assert len({came.headers["webhook-id"] for came in hook.received}) == 1
        assert len({came.body for came in hook.received}) == 1
        assert {came.path for came in hook.received} == {"/hook"}
        for came in hook.received:
            for secret in (made.signing_secret, second.signing_secret):
                event = client.webhooks.unwrap(came.body, came.headers, secret=secret)
                assert (event.type, event.data.id) == (SUCCEEDED, "ftjob-1")  # type: ignore[union-attr]


def test_owners_see_what_became_of_each_event(
    http: httpx.Client, quick: Settings, db: Session, tenant: Tenant
) -> None:
    def only_second(came: Received) -> tuple[int, dict[str, str], bytes]:
        return (200 if b"ftjob-2" in came.body else 503), {}, b"a secret of the network inside"

    with receiver(only_second) as hook:
        endpoint = make_webhook_endpoint(db, tenant.project_id, hook.url)
        first, second = emit(db, tenant, "ftjob-1", "ftjob-2")
        url = f"/v1/webhook_endpoints/{endpoint.id}/deliveries"
        with relaying(quick):
            wait_for(lambda: http.get(url).json()["data"][1]["attempts"] >= 2, seconds=30)
            wait_for(lambda: http.get(url).json()["data"][0]["status"] == "delivered", seconds=30)
    page = http.get(url, params={"limit": 1}).json()
    assert (page["has_more"], page["last_id"]) == (True, second.id)
    assert page["data"][0]["last_status_code"] == 200
    (failing,) = http.get(url, params={"after": second.id}).json()["data"]
    assert failing["id"] == first.id
    assert (failing["status"], failing["last_status_code"]) == ("pending", 503)
    assert failing["last_error"] == "The receiver answered 503."
    assert failing["next_attempt_at"] >= failing["last_attempt_at"] >= failing["created_at"]
    stored = db.scalars(text("SELECT string_agg(d::text, ' ') FROM webhook_deliveries d")).one()
    assert "secret of the network" not in stored
    assert http.get(f"/v1/webhook_endpoints/{endpoint.id}").json()["object"] == "webhook_endpoint"


def test_pauses_double_vary_and_are_bounded() -> None:
    first = timedelta(seconds=5)
    for attempt, middle in ((1, 5), (2, 10), (5, 80), (13, 20480), (14, 21600), (40, 21600), (10**6, 21600)):
        pauses = [outbox.pause(attempt, first).total_seconds() for _ in range(200)]
        assert 0.75 * middle <= min(pauses) <= max(pauses) <= 1.25 * middle
        assert max(pauses) - min(pauses) > 0.2 * middle


def test_a_delivery_is_tried_for_72_hours_and_then_failed(db: Session, tenant: Tenant) -> None:
    make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1")
    attempts = 0
    while statuses(db) == ["pending"]:
        (claimed,) = claim(db)
        settle(db, claimed, BAD)
        attempts += 1
        past = WebhookDelivery.created_at - (WebhookDelivery.next_at - func.now())
        db.execute(update(WebhookDelivery).values(created_at=past, next_at=func.now()))  # the pause passes
        db.commit()
    row = db.scalars(select(WebhookDelivery)).one()
    age = row.finished_at - row.created_at  # type: ignore[operator]
    assert (row.status, row.attempts) == ("failed", attempts)
    assert timedelta(hours=64) < age < timedelta(hours=80)
    assert 20 < attempts < 30
    assert claim(db) == []


def test_two_relays_never_hold_the_same_delivery(db: Session, tenant: Tenant) -> None:
    for _ in range(10):
        make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1", "ftjob-2", "ftjob-3")
    held: list[str] = []

    def take() -> None:
        for _ in range(10):
            with unit_of_work() as own:
                held.extend(each.delivery_id for each in outbox.claim(own, most=2, lease=LEASE))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == len(set(held)) == 30


def test_a_claim_that_ran_out_is_due_again_and_its_late_outcome_is_not_written(
    db: Session, tenant: Tenant
) -> None:
    make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1")
    (late,) = claim(db, lease=timedelta(seconds=-1))
    (held,) = claim(db)
    assert (late.delivery_id, late.attempt, held.attempt) == (held.delivery_id, 1, 2)
    assert claim(db) == []
    settle(db, late, BAD)
    assert statuses(db) == ["pending"]
    assert db.scalars(select(WebhookDelivery.claimed_until)).one() is not None
    settle(db, held, GOOD)
    settle(db, late, BAD)
    assert statuses(db) == ["delivered"]


def test_no_transaction_is_open_while_a_receiver_takes_its_time(
    quick: Settings, db: Session, tenant: Tenant
) -> None:
    answer_now, came = threading.Event(), threading.Event()

    def slow(_: Received) -> tuple[int, dict[str, str], bytes]:
        came.set()
        assert answer_now.wait(20)
        return 200, {}, b""

    with receiver(slow) as hook, relaying(quick):
        make_webhook_endpoint(db, tenant.project_id, hook.url)
        emit(db, tenant, "ftjob-1")
        assert came.wait(20)
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        oldest = f"SELECT max(clock_timestamp() - xact_start) FROM pg_stat_activity WHERE {others}"
        time.sleep(0.5)  # longer than a claim takes, shorter than the receiver
        age = db.scalars(text(oldest)).one()
        assert age is None or age < timedelta(seconds=0.4)
        answer_now.set()
        wait_for(lambda: statuses(db) == ["delivered"], seconds=30)


def test_one_endpoint_has_only_so_many_messages_on_the_way(db: Session, tenant: Tenant) -> None:
    make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, *(f"ftjob-{n}" for n in range(10)))
    first = claim(db)
    assert len(first) == outbox.IN_FLIGHT
    assert claim(db) == []
    settle(db, first[0], GOOD)
    assert len(claim(db)) == 1


def test_an_endpoint_that_fails_gets_one_message_at_a_time_after_all_that_are_well(
    db: Session, tenant: Tenant
) -> None:
    ill = make_webhook_endpoint(db, tenant.project_id)
    ill.failing_since = func.now()  # type: ignore[assignment]
    emit(db, tenant, "ftjob-1", "ftjob-2", "ftjob-3")
    well = make_webhook_endpoint(db, tenant.project_id, "https://8.8.8.8/")
    emit(db, tenant, "ftjob-4")
    assert [each.endpoint_id for each in claim(db, most=1)] == [well.id]
    assert [each.endpoint_id for each in claim(db)] == [ill.id]
    assert claim(db) == []


def test_a_success_ends_the_report_of_failing(db: Session, tenant: Tenant) -> None:
    endpoint = make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1", "ftjob-2")
    for claimed in claim(db):
        settle(db, claimed, BAD)
    since = db.scalars(select(WebhookEndpoint.failing_since)).one()
    assert since is not None
    assert outbox.failing_for(db, timedelta(seconds=-1)) == [(endpoint.id, tenant.project_id, since, 2)]
    assert outbox.failing_for(db, timedelta(days=1)) == []
    due_now(db)
    (claimed,) = claim(db)
    settle(db, claimed, GOOD)
    assert db.scalars(select(WebhookEndpoint.failing_since)).one() is None


def test_events_of_one_job_are_sent_in_order_until_one_has_failed_five_times(
    db: Session, tenant: Tenant
) -> None:
    make_webhook_endpoint(db, tenant.project_id, types=("fine_tuning.checkpoint.created", SUCCEEDED))
    webhooks.emit(db, tenant.project_id, "fine_tuning.checkpoint.created", "ftckpt_1", job_id="ftjob-1")
    first, second = emit(db, tenant, "ftjob-1")
    data = json.loads(db.get_one(WebhookEvent, first.event_id).body)["data"]
    assert data == {"id": "ftckpt_1", "fine_tuning_job_id": "ftjob-1"}
    for _ in range(outbox.ORDERED_ATTEMPTS):
        (claimed,) = claim(db)
        assert claimed.delivery_id == first.id
        assert claim(db) == []
        settle(db, claimed, BAD)
        due_now(db)
    (claimed,) = claim(db, most=1)
    assert claimed.delivery_id == first.id
    assert claim(db) == []
    settle(db, claimed, BAD)
    (claimed,) = claim(db)
    assert claimed.delivery_id == second.id


def test_a_new_url_gets_what_waits_at_once(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    endpoint = make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1")
    (claimed,) = claim(db)
    settle(db, claimed, BAD)
    assert claim(db) == []
    http.post(f"/v1/webhook_endpoints/{endpoint.id}", json={"url": "https://8.8.8.8/new"})
    (claimed,) = claim(db)
    assert claimed.url == "https://8.8.8.8/new"


def test_what_waits_for_a_deleted_endpoint_goes_with_it(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    endpoint = make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1")
    (claimed,) = claim(db)
    http.delete(f"/v1/webhook_endpoints/{endpoint.id}")
    settle(db, claimed, BAD)
    assert statuses(db) == []


def test_finished_deliveries_are_kept_for_30_days(db: Session, tenant: Tenant) -> None:
    make_webhook_endpoint(db, tenant.project_id)
    emit(db, tenant, "ftjob-1", "ftjob-2", "ftjob-3")
    for claimed in claim(db)[:2]:
        settle(db, claimed, GOOD)
    oldest = select(WebhookDelivery.id).order_by(WebhookDelivery.seq).limit(1).scalar_subquery()
    long_ago = func.now() - timedelta(days=31)
    db.execute(update(WebhookDelivery).where(WebhookDelivery.id == oldest).values(finished_at=long_ago))
    db.execute(update(WebhookEvent).values(created_at=long_ago))
    assert outbox.purge(db) == 1
    db.commit()
    assert statuses(db) == ["delivered", "pending"]
    assert db.scalars(select(func.count()).select_from(WebhookEvent)).one() == 2


def test_a_secret_sealed_with_another_key_is_named_and_nothing_is_sent(
    quick: Settings, db: Session, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as hook:
        make_webhook_endpoint(db, tenant.project_id, hook.url)
        emit(db, tenant, "ftjob-1")
        monkeypatch.setenv("CHERRY_SECRET_KEY", "another key of the operator, as long")
        get_settings.cache_clear()
        with relaying(get_settings()):
            error = wait_for(lambda: _last_error(db), seconds=30)
        assert "rotate it" in error
        assert hook.received == []


def _last_error(db: Session) -> str | None:
    db.rollback()
    return db.scalars(select(WebhookDelivery.last_error)).one()


def test_a_relay_outlives_a_database_that_is_away_for_a_while(
    quick: Settings, db: Session, tenant: Tenant
) -> None:
    with receiver() as hook, relaying(quick):
        make_webhook_endpoint(db, tenant.project_id, hook.url)
        emit(db, tenant, "ftjob-1")
        wait_for(lambda: statuses(db) == ["delivered"], seconds=30)
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
        db.execute(text(kill))
        emit(db, tenant, "ftjob-2")
        wait_for(lambda: statuses(db) == ["delivered", "delivered"], seconds=30)
