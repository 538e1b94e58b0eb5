"""A running sampler with a tiny model, and OpenAI's client to ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import uvicorn
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from app.settings import Settings, get_settings
from tests.factories import Tenant, make_tenant
from tests.factories import make_model as add_model
from tests.tiny_model import make_tiny_model
from tests.workers.serving.support import TOKEN, client_of
from workers.serving.server import create_sampler


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "sharp", scale=0.3, context=600)


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of the test, with a sampler's token."""
    monkeypatch.setenv("CHERRY_SAMPLER_TOKEN", TOKEN)
    monkeypatch.setenv("CHERRY_SAMPLER_MODELS", "1")
    monkeypatch.setenv("CHERRY_SAMPLER_DEVICE", "cpu")
    get_settings.cache_clear()
    return get_settings()


@pytest.fixture
def sampler(settings: Settings) -> Iterator[tuple[str, Starlette]]:
    """A running sampler: its URL and its app."""
    app = create_sampler(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    server.should_exit = True
    thread.join()
    app.state.engine.close()


@pytest.fixture
def tenant(db: Session, folder: Path) -> Tenant:
    made = make_tenant(db)
    add_model(db, "tiny", folder)
    db.commit()
    return made


@pytest.fixture
def client(sampler: tuple[str, Starlette], tenant: Tenant) -> Iterator[openai.OpenAI]:
    with client_of(sampler[0], tenant.project_id, _strict_response_validation=True) as made:
        yield made


@pytest.fixture
def loose(sampler: tuple[str, Starlette], tenant: Tenant) -> Iterator[openai.OpenAI]:
    """A client that takes nulls: OpenAI's own completions have some that its types do not allow."""
    with client_of(sampler[0], tenant.project_id) as made:
        yield made
