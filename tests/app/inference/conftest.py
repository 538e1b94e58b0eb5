"""A service whose models are served by a stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.settings import Settings, get_settings
from tests.app.inference.model_server import ModelServer, running


@pytest.fixture
def models(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:  # noqa: ARG001
    """A server at which the service asks its models; it calls itself a sampler of this service."""
    server = ModelServer()
    with running(server.app()) as url:
        monkeypatch.setenv("CHERRY_SAMPLER_URL", url)
        monkeypatch.setenv("CHERRY_SAMPLER_TOKEN", "between-ourselves")
        get_settings.cache_clear()
        yield server
    get_settings.cache_clear()
