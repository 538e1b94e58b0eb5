"""Fixtures: one embedded Postgres per test process, migrated once, copied for each test."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import QueuePool
from sqlalchemy.orm import Session

from app.db import get_engine, session
from app.embedded.postgres import Postgres
from app.grading.services import forget_services
from app.queue import get_celery
from app.settings import Settings, get_settings
from app.storage import get_storage
from tests.properties import register_profiles

TEMPLATE = "cherry"
REQUEST_SECONDS = 5.0
numbers = count(1)

register_profiles()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole services first, then those with slow tests: a long one at the end would run alone."""
    _tell_apart(items)
    rank: dict[Path, int] = {}
    for item in items:
        mine = 0 if item.get_closest_marker("e2e") else 1 if item.get_closest_marker("slow") else 2
        rank[item.path] = min(mine, rank.get(item.path, 2))
    items.sort(key=lambda item: rank[item.path])


def _tell_apart(items: list[pytest.Item]) -> None:
    """Of tests with one id only one would be run by several processes. Schemathesis gives its tests names of
    their own, and one id."""
    times = Counter(item.nodeid for item in items)
    for item in items:
        if times[item.nodeid] > 1:
            item._id = item.id.with_params(item.name.partition("[")[2].removesuffix("]"))
    if len({item.nodeid for item in items}) < len(items):
        raise pytest.UsageError("There are tests with the same id.")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server whose first database is migrated; never write to that one."""
    from app.migrate import upgrade

    folder = Path(tempfile.mkdtemp(prefix="cherry-test-"))
    server = Postgres(folder / "postgres", durable=False)
    try:
        server.start()
        upgrade(server.url)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """An empty, migrated database of the test's own."""
    name = f"test_{next(numbers)}"
    admin = postgres.url.replace(f"/{TEMPLATE}?", "/postgres?")
    new, template = sql.Identifier(name), sql.Identifier(TEMPLATE)
    with psycopg.connect(admin, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(new, template))
    yield postgres.url.replace(f"/{TEMPLATE}?", f"/{name}?")
    with psycopg.connect(admin, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of this process and its children: the test's database, folder and a quiet broker."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("CHERRY_BROKER_URL", f"filesystem://{tmp_path}/broker")
    monkeypatch.setenv("CHERRY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CHERRY_SECRET_KEY", "of the tests, thirty-two and more")
    for cached in (get_settings, get_engine, get_storage, get_celery):
        cached.cache_clear()
    forget_services()
    yield get_settings()
    wait_for_requests()
    get_engine().dispose()
    for cached in (get_settings, get_engine, get_storage, get_celery):
        cached.cache_clear()
    forget_services()


def wait_for_requests() -> None:
    """Waits until no request of the tests' server holds a connection.

    A browser that is closed leaves some under way, and a connection that comes back to a pool that is gone
    stays open.
    """
    pool = get_engine().pool
    assert isinstance(pool, QueuePool)
    deadline = time.monotonic() + REQUEST_SECONDS
    while pool.checkedout() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def db(settings: Settings) -> Iterator[Session]:
    """A session of the test's database; commit what other sessions should see."""
    with session() as open_session:
        yield open_session
