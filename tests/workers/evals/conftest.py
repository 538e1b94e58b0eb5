"""A project with an eval, and another server that answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.grading.services import forget_services
from app.settings import get_settings
from tests.app.webhooks.receivers import Receiver, receiver
from tests.factories import Tenant, make_tenant

Point = Callable[[Receiver], None]


@pytest.fixture
def tenant(db: Session) -> Tenant:
    made = make_tenant(db)
    db.commit()
    return made


@pytest.fixture
def other_model(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Names a server in CHERRY_JUDGES as the model "other"."""

    def name(server: Receiver, **entry: Any) -> None:
        told = {"base_url": f"http://127.0.0.1:{server.port}/v1", "retries": 0, **entry}
        monkeypatch.setenv("CHERRY_JUDGES", json.dumps({"other": told}))
        get_settings.cache_clear()
        forget_services()

    return name


@pytest.fixture
def server() -> Iterator[Receiver]:
    """A server whose answers a test sets."""
    with receiver() as made:
        yield made
