"""The HTTP service in a thread, on a free port; each test has a database and a tenant of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import httpx2 as httpx
import openai
import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from sqlalchemy.orm import Session

from app.http.server import HttpServer
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings
from tests.app.blocking import Blocking
from tests.app.http.judged import Judged
from tests.factories import GRADER, Tenant, make_admin_key, make_file, make_model, make_tenant


@pytest.fixture(scope="session")
def service() -> FastAPI:
    """Tests have databases of their own in one process, so no key is taken to be known."""
    unused = {"DATABASE_URL": "postgresql://nobody@nowhere/nothing", "broker_url": "filesystem://nowhere"}
    return create_app(Settings(**unused, key_cache=timedelta(0)))


@pytest.fixture(scope="session")
def judged(service: FastAPI) -> Judged:
    """The service, and what OpenAI's document has against its responses."""
    return Judged(service)


@pytest.fixture(scope="session")
def server_url(service: FastAPI, judged: Judged) -> Iterator[str]:
    """One server for all tests: it opens its database for each request, so it follows the test's."""
    configure_logging("warning")
    config = uvicorn.Config(judged, port=0, log_config=None, lifespan="off", timeout_keep_alive=75)
    server = HttpServer(config, service.state.feed)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def tenant(db: Session) -> Tenant:
    """The caller of a test, with a base model to tune."""
    made = make_tenant(db)
    make_model(db)
    db.commit()
    return made


@pytest.fixture
def job_body(db: Session, tenant: Tenant) -> dict[str, Any]:
    """A request for a job that is right."""
    train, valid = make_file(db, tenant.project_id), make_file(db, tenant.project_id)
    db.commit()
    return {
        "model": "cherry-nano",
        "training_file": train.id,
        "validation_file": valid.id,
        "method": {"type": "reinforcement", "reinforcement": {"grader": dict(GRADER)}},
    }


@pytest.fixture
def http(server_url: str, tenant: Tenant) -> Iterator[httpx.Client]:
    """Raw HTTP with the tenant's key."""
    headers = {"authorization": f"Bearer {tenant.key}"}
    with httpx.Client(base_url=server_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def admin_key(db: Session, tenant: Tenant) -> str:
    key = make_admin_key(db, tenant.organization_id)
    db.commit()
    return key


@pytest.fixture
def admin(server_url: str, admin_key: str) -> Iterator[httpx.Client]:
    """Raw HTTP with an admin key."""
    headers = {"authorization": f"Bearer {admin_key}"}
    with httpx.Client(base_url=server_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def _responses_fit_the_document(judged: Judged) -> Iterator[None]:
    """Whatever a test is about, each JSON response in it has the published form."""
    judged.faults.clear()
    yield
    assert not judged.faults, "\n".join(judged.faults)


@pytest.fixture(params=["loose", "strict", "async"])
def client(request: pytest.FixtureRequest, server_url: str, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official client: as users have it, validating every response, and the asynchronous one."""
    options: dict[str, Any] = {"base_url": f"{server_url}/v1", "api_key": tenant.key, "max_retries": 0}
    if request.param == "async":
        with start_blocking_portal() as portal:
            made = openai.AsyncOpenAI(**options, _strict_response_validation=True)
            yield cast(openai.OpenAI, Blocking(made, portal))
            portal.call(made.close)
        return
    with openai.OpenAI(**options, _strict_response_validation=request.param == "strict") as sync:
        yield sync
