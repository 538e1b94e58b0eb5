"""An API that is killed: what was under way is carried out exactly once or not at all, and leaves nothing."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from threading import Event, Lock
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.files.models import File, LooseBytes
from app.idempotency.models import IdempotencyKey
from app.settings import Settings
from app.storage import get_storage
from app.uploads.models import Upload
from benchmarks.api.service import running_api
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_tenant
from tests.locks import waiting_for_locks
from workers.jobs.sweep import sweep

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals"),
]

BODY = {"filename": "a", "purpose": "user_data", "bytes": 1, "mime_type": "a/b"}
KILLS = int(os.environ.get("CHERRY_TEST_KILLS", "2"))


@pytest.fixture
def tenant(db: Session) -> Tenant:
    made = make_tenant(db)
    db.commit()
    return made


class Sender:
    """Sends one request for each key, from several threads, until the server is gone."""

    def __init__(self, url: str, tenant: Tenant) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.tried: set[str] = set()
        self.enough = Event()
        self._lock = Lock()
        headers = {"authorization": f"Bearer {tenant.key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30)

    def close(self) -> None:
        self._client.close()

    def send(self, keys: list[str], enough: int) -> None:
        for key in keys:
            self.tried.add(key)
            try:
                answer = self._client.post("/v1/uploads", json=BODY, headers={"idempotency-key": key})
            except httpx.HTTPError:
                return
            assert answer.status_code == 200, answer.text
            with self._lock:
                self.answers[key] = answer.json()
                if len(self.answers) == enough:
                    self.enough.set()


@pytest.mark.long
def test_each_key_makes_exactly_one_upload(settings: Settings, db: Session, tenant: Tenant) -> None:
    tried: set[str] = set()
    answers: dict[str, dict[str, Any]] = {}
    for kill in range(KILLS):
        with (
            running_api({}) as (url, pid),
            closing(Sender(url, tenant)) as sender,
            ThreadPoolExecutor(6) as pool,
        ):
            for thread in range(6):
                pool.submit(sender.send, [f"{kill}-{thread}-{n}" for n in range(500)], 20 + 7 * kill)
            assert sender.enough.wait(60)
            os.kill(pid, signal.SIGKILL)
        tried |= sender.tried
        answers |= sender.answers
    assert len(tried) > len(answers), "nothing was under way when the API was killed"
    db.execute(update(IdempotencyKey).values(locked_until=func.now()))  # half a minute later
    db.commit()
    with running_api({}) as (url, _), closing(Sender(url, tenant)) as again:
        again.send(sorted(tried), 0)
    assert again.answers.keys() == tried
    assert {key: again.answers[key] for key in answers} == answers
    db.rollback()
    made = db.scalars(select(Upload.id)).all()
    assert sorted(made) == sorted(answer["id"] for answer in again.answers.values())


def test_bytes_of_a_file_whose_row_was_never_written_are_swept(
    settings: Settings, db: Session, tenant: Tenant
) -> None:
    headers = {"authorization": f"Bearer {tenant.key}"}

    def upload(url: str) -> None:
        with suppress(httpx.HTTPError):
            httpx.post(
                f"{url}/v1/files", data={"purpose": "user_data"}, files={"file": b"abc"}, headers=headers
            )

    with running_api({}) as (url, pid), ThreadPoolExecutor(1) as pool, unit_of_work() as blocking:
        blocking.execute(text("LOCK TABLE files IN SHARE MODE"))  # the row has to wait
        pool.submit(upload, url)
        wait_for(waiting_for_locks, what="the row of the file")
        os.kill(pid, signal.SIGKILL)
    assert len(get_storage().list_keys("files")) == 1
    sweep(Event())
    assert len(get_storage().list_keys("files")) == 1, "only time tells that its request is gone"
    db.execute(update(LooseBytes).values(clear_at=func.now()))
    db.commit()
    sweep(Event())
    assert get_storage().list_keys("files") == []
    assert db.scalars(select(File.id)).all() == []
