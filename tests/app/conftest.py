"""The HTTP service in a thread, on a free port; each test has a database and a tenant of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx2 as httpx
import openai
import pytest
import uvicorn
from sqlalchemy.orm import Session

from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings
from tests.factories import Tenant, make_model, make_tenant


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """One server for all tests: it opens its database for each request, so it follows the test's."""
    configure_logging("warning")
    unused = Settings(DATABASE_URL="postgresql://nobody@nowhere/nothing", broker_url="filesystem://nowhere")
    config = uvicorn.Config(
        create_app(unused), port=0, log_config=None, lifespan="off", timeout_keep_alive=75
    )
    server = uvicorn.Server(config)
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
def http(server_url: str, tenant: Tenant) -> Iterator[httpx.Client]:
    """Raw HTTP with the tenant's key."""
    headers = {"authorization": f"Bearer {tenant.key}"}
    with httpx.Client(base_url=server_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def client(request: pytest.FixtureRequest, server_url: str, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official client, as users have it and validating every response."""
    with openai.OpenAI(
        base_url=f"{server_url}/v1",
        api_key=tenant.key,
        max_retries=0,
        _strict_response_validation=request.param,
    ) as made:
        yield made
