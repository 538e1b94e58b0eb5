"""Several processes of the API behind one port."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import REQUEST_THREADS
from app.process import descendants, is_alive
from app.settings import Settings
from benchmarks.api.service import running_api
from tests.e2e.service import wait_for
from tests.factories import make_file, make_job, make_model, make_tenant
from tests.locks import waiting_for_locks

JOBS = "/v1/fine_tuning/jobs"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals"),
]


def test_one_that_is_killed_is_replaced_and_none_outlives_the_first(settings: Settings) -> None:
    with running_api({"CHERRY_API_PROCESSES": "2"}) as (url, pid):
        wait_for(lambda: len(descendants(pid)) == 2, what="two processes")
        killed, kept = descendants(pid)
        os.kill(killed, signal.SIGKILL)
        answers = [httpx.get(f"{url}/healthz").status_code for _ in range(5)]
        assert answers == [200] * 5  # by the other one
        wait_for(lambda: len(descendants(pid)) == 2 and killed not in descendants(pid), what="a new one")
        members = descendants(pid)
        assert kept in members
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not any(map(is_alive, members)), seconds=20, what="the end of all")


def test_jobs_are_read_while_every_handler_waits_for_a_lock(settings: Settings, db: Session) -> None:
    """Each look-up of a key and each read of a job has threads and connections that handlers never take."""
    tenant = make_tenant(db)
    make_model(db)
    job, file = make_job(db, tenant.project_id), make_file(db, tenant.project_id)
    db.commit()
    headers = {"authorization": f"Bearer {tenant.key}"}
    wanted = {"model": "cherry-nano", "training_file": file.id, "method": {"type": "supervised"}}
    with (
        running_api({"CHERRY_KEY_CACHE": "PT0S", "CHERRY_DATABASE_STATEMENT_LIMIT": "PT1M"}) as (url, _),
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
        ThreadPoolExecutor(REQUEST_THREADS + 6) as creators,
    ):
        db.execute(text("SELECT 1 FROM projects WHERE id = :id FOR UPDATE"), {"id": tenant.project_id})
        made = [creators.submit(client.post, JOBS, json=wanted) for _ in range(REQUEST_THREADS + 6)]
        try:
            wait_for(lambda: waiting_for_locks() == REQUEST_THREADS, what="every handler to wait")
            assert client.get(f"{JOBS}/{job.id}").json()["id"] == job.id
            assert not any(answer.done() for answer in made)
        finally:
            db.rollback()
        assert [answer.result().status_code for answer in made] == [200] * len(made)


def test_when_the_first_is_killed_the_others_end_too(settings: Settings) -> None:
    with running_api({"CHERRY_API_PROCESSES": "2"}) as (_, pid):
        wait_for(lambda: len(descendants(pid)) == 2, what="two processes")
        members = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, members)), seconds=20, what="the end of all")
