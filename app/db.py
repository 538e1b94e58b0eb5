"""Database sessions: one request or task is one transaction; wake-ups leave after the commit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import DateTime, Engine, MetaData, create_engine, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.settings import get_settings

log = structlog.get_logger(__name__)
T = TypeVar("T")

REQUEST_THREADS = 24
"""Requests that one API process handles at a time."""
ENDING_THREADS = 8
"""Threads that only end transactions, so that nobody waits for a thread while holding a connection."""
LOOKUP_THREADS = 4
"""Threads for keys and for what is polled: they never wait behind handlers that wait for a lock."""
POOL_SIZE = REQUEST_THREADS + ENDING_THREADS + LOOKUP_THREADS
"""Connections that a process may hold: one for each thread."""
PING_AFTER_SECONDS = 0.0

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
    }


def sqlalchemy_url(url: str) -> str:
    """The same database through psycopg 3: `postgres://` and `postgresql://` name no driver."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}"
    raise ValueError(f"DATABASE_URL must be a Postgres URL (postgresql://...), not {scheme}://")


async def on_lookup_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a short, read-mostly function on one of the `LOOKUP_THREADS`."""
    return await to_thread.run_sync(function, *arguments, limiter=_lookups())


@lru_cache
def _lookups() -> CapacityLimiter:
    return CapacityLimiter(LOOKUP_THREADS)


@lru_cache
def get_engine() -> Engine:
    """The connection pool of this process."""
    url = sqlalchemy_url(get_settings().database_url)
    engine = create_engine(
        url, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=10, connect_args={"connect_timeout": 5}
    )
    _ping_idle_connections(engine)
    return engine


def _ping_idle_connections(engine: Engine) -> None:
    """Try a connection that has lain idle before it is used: the server may have restarted since.

    Not each time, as SQLAlchemy's own `pool_pre_ping` does: under load that is a third of all round trips.
    """

    def note_use(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if time.monotonic() - record.info.get("used_at", -math.inf) < PING_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as problem:
            raise InvalidatePoolError from problem  # the pool connects anew and asks again

    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ping)


def session() -> Session:
    """A session of this process's database; the caller commits and closes it."""
    return Session(get_engine(), expire_on_commit=False)


def begin() -> Session:
    """Begin a unit of work. Nothing is sent to the database yet; `commit` or `Session.close` ends it."""
    db = session()
    db.info["after_commit"] = []
    return db


def commit(db: Session) -> None:
    """End a unit of work: all its writes, then the wake-ups."""
    try:
        db.commit()
    finally:
        db.close()
    for send in db.info["after_commit"]:
        send()  # logs and swallows broker errors: the waker finds the row within seconds


@contextmanager
def unit_of_work() -> Iterator[Session]:
    """All writes of one request or task, or none; wake-ups leave only after the commit."""
    db = begin()
    try:
        yield db
    except BaseException:
        db.close()
        raise
    commit(db)


def after_commit(db: Session, send: Callable[[], None]) -> None:
    """Call `send` once this unit of work has committed."""
    db.info.setdefault("after_commit", []).append(send)
