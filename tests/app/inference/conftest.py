"""A service whose models are served by a real sampler, or by a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.settings import Settings, get_settings
from tests.app.inference.model_server import ModelServer, running
from tests.factories import Tenant, make_model, make_tenant

BUILT_IN = Path(__file__).parents[3] / "workers" / "models" / "cherry_nano"


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Has the service ask its models there."""
    monkeypatch.setenv("CHERRY_SAMPLER_URL", url)
    get_settings.cache_clear()


@pytest.fixture
def models(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server at which the service asks its models; it calls itself a sampler of this service."""
    server = ModelServer()
    monkeypatch.setenv("CHERRY_SAMPLER_TOKEN", "between-ourselves")
    with running(server.app()) as url:
        point_at(monkeypatch, url)
        yield server
    get_settings.cache_clear()


@pytest.fixture
def tenant(db: Session) -> Tenant:
    """The caller of a test, with the built-in model."""
    made = make_tenant(db)
    make_model(db, folder=BUILT_IN)
    db.commit()
    return made


@pytest.fixture
def sampler(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real sampler, which the service asks; its URL."""
    from workers.serving.server import create_sampler

    monkeypatch.setenv("CHERRY_SAMPLER_TOKEN", "between-ourselves")
    monkeypatch.setenv("CHERRY_SAMPLER_DEVICE", "cpu")
    get_settings.cache_clear()
    app = create_sampler(get_settings())
    with running(app) as url:
        point_at(monkeypatch, url)
        yield url
    app.state.engine.close()
    get_settings.cache_clear()
