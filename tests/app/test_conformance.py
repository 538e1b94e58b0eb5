"""Conformance mode: never on a database that somebody needs, and the same start for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.conformance import seed
from app.conformance.router import NotDisposable, mark_disposable
from app.db import get_engine
from app.main import create_app
from app.settings import get_settings
from tests.factories import make_tenant


@pytest.fixture
def app(db: Session, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("CHERRY_CONFORMANCE", "1")
    monkeypatch.setenv("CHERRY_SECRET_KEY", "k" * 32)
    get_settings.cache_clear()
    return create_app()


@pytest.fixture
def disposable(app: FastAPI, db: Session) -> Iterator[TestClient]:
    mark_disposable(db)
    db.commit()
    get_engine().dispose()  # the mark is read when a connection begins
    with TestClient(app) as client:
        yield client


def test_a_database_that_was_not_marked_is_refused_and_left_alone(app: FastAPI, db: Session) -> None:
    tenant = make_tenant(db)
    db.commit()
    with pytest.raises(NotDisposable, match="not marked as disposable"), TestClient(app):
        pass
    client = TestClient(app, raise_server_exceptions=False)  # as if it had started before
    assert client.post("/conformance/reset", json={}).status_code == 500
    headers = {"authorization": f"Bearer {tenant.key}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_without_the_setting_there_is_nothing_to_reset(server_url: str) -> None:
    assert httpx.post(f"{server_url}/conformance/reset", json={}).status_code == 404


def test_each_reset_gives_the_same_objects_in_the_state_that_the_test_needs(disposable: TestClient) -> None:
    headers = {"authorization": f"Bearer {seed.API_KEY}"}
    job = f"/v1/fine_tuning/jobs/{seed.JOB}"
    for _ in range(2):
        assert (
            disposable.post("/conformance/reset", json={"test": "test_method_cancel[loose]"}).status_code
            == 204
        )
        assert disposable.get(job, headers=headers).json()["status"] == "running"
        assert disposable.delete("/v1/files/file_id", headers=headers).json()["deleted"]
        assert disposable.get("/v1/files/file_id", headers=headers).status_code == 404
    disposable.post("/conformance/reset", json={"test": "test_method_resume[strict]"})
    assert disposable.get(job, headers=headers).json()["status"] == "paused"
    assert disposable.post(f"{job}/resume", headers=headers).json()["status"] == "queued"


def test_only_what_no_server_could_take_is_rewritten(disposable: TestClient) -> None:
    disposable.post("/conformance/reset", json={})
    headers = {"authorization": f"Bearer {seed.API_KEY}"}

    def complete(md5: str) -> Any:
        body = {"part_ids": ["string"], "md5": md5}
        return disposable.post(f"/v1/uploads/{seed.UPLOAD}/complete", json=body, headers=headers)

    assert complete("0" * 32).status_code == 400
    assert complete("md5").json()["status"] == "completed"
