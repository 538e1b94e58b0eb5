"""Gate W1: a receiver that fails and answers that get lost, a relay that is killed; no event is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.settings import Settings
from app.webhooks import service as webhooks
from app.webhooks.models import WebhookDelivery, WebhookEvent
from tests.app.webhooks.receivers import Received, receiver
from tests.e2e.service import wait_for
from tests.factories import make_tenant, make_webhook_endpoint

pytestmark = [pytest.mark.slow]

JOBS, CHECKPOINTS = 25, 9
FAILING, LOST = 0.05, 0.05
KILLS = 2
TYPES = ("fine_tuning.checkpoint.created", "fine_tuning.job.succeeded")


class Flaky:
    """Takes every request; now and then answers 500, or not at all."""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.lock = threading.Lock()
        self.faults: dict[str, int] = defaultdict(int)

    def __call__(self, _: Received) -> tuple[int, dict[str, str], bytes] | None:
        with self.lock:
            draw = self.random.random()
            kind = "failed" if draw < FAILING else "lost" if draw < FAILING + LOST else "ok"
            self.faults[kind] += 1
        if kind == "lost":
            return None
        return (500 if kind == "failed" else 200), {}, b""


@contextmanager
def relay(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "app.cli.main", "relay"], env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(project_id: str) -> dict[str, list[str]]:
    """What happened, by job: bodies in their order."""
    for number in range(CHECKPOINTS + 1):
        for job in range(JOBS):
            job_id = f"ftjob-{job}"
            with unit_of_work() as db:
                if number < CHECKPOINTS:
                    webhooks.emit(db, project_id, TYPES[0], f"ftckpt-{job}-{number}", job_id=job_id)
                else:
                    webhooks.emit(db, project_id, TYPES[1], job_id)
    by_job: dict[str, list[str]] = defaultdict(list)
    with unit_of_work() as db:
        query = select(WebhookDelivery.order_key, WebhookEvent.body).join(WebhookEvent)
        for job_id, body in db.execute(query.order_by(WebhookDelivery.seq)):
            by_job[job_id].append(body)
    return by_job


def waiting(db: Session) -> int:
    db.rollback()
    return db.scalars(select(func.count()).where(WebhookDelivery.status == "pending")).one()


@pytest.mark.long
def test_every_event_arrives_with_one_id_of_its_own_and_in_the_order_of_its_job(
    db: Session, settings: Settings
) -> None:
    env = {
        "CHERRY_OUTBOUND_ALLOW": "127.0.0.1",
        "CHERRY_OUTBOUND_ALLOW_HTTP": "true",
        "CHERRY_WEBHOOK_TIMEOUT": "PT1S",
        "CHERRY_WEBHOOK_FIRST_RETRY": "PT0.1S",
        "CHERRY_LOG_LEVEL": "error",
    }
    flaky = Flaky()
    with receiver(flaky) as hook:
        tenant = make_tenant(db)
        make_webhook_endpoint(db, tenant.project_id, hook.url, TYPES)  # type: ignore[arg-type]
        db.commit()
        sent = told(tenant.project_id)
        total = sum(map(len, sent.values()))
        assert total == JOBS * (CHECKPOINTS + 1)
        for kill in range(1, KILLS + 1):
            with relay({**os.environ, **env}) as process:
                due = total - kill * total // (KILLS + 1)
                wait_for(lambda due=due: waiting(db) <= due, what="some deliveries")  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
        with relay({**os.environ, **env}) as process:
            wait_for(lambda: waiting(db) == 0, what="all deliveries")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        arrived = hook.received
    assert flaky.faults["failed"] > 0
    assert flaky.faults["lost"] > 0
    ids: dict[str, set[str]] = defaultdict(set)
    first_seen: dict[str, list[str]] = defaultdict(list)
    for came in arrived:
        body = came.body.decode()
        data = json.loads(body)["data"]
        ids[body].add(came.headers["webhook-id"])
        seen = first_seen[data.get("fine_tuning_job_id", data["id"])]
        if body not in seen:
            seen.append(body)
    assert first_seen == sent
    assert all(len(each) == 1 for each in ids.values())
    assert len(set.union(*ids.values())) == total
    print(f"{total} events, {len(arrived)} requests, {KILLS} kills, {dict(flaky.faults)}")
