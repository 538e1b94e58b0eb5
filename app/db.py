"""Opens database sessions. One request or task is one transaction, and wake-ups leave after the commit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy import DateTime, Engine, MetaData, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session

from app.db_connection import Connector, StatementLimit
from app.settings import get_settings
from app.storable import read_back

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

POOL_SECONDS = 5.0
"""How long a thread may wait for a connection; as there is one for each, it hardly ever does."""
_statements = StatementLimit()

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
    """Returns the URL of the same database through psycopg 3: `postgres://` and `postgresql://` name no
    driver."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}"
    raise ValueError(f"DATABASE_URL must be a Postgres URL (postgresql://...), not {scheme}://")


async def on_lookup_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a short, read-mostly function on one of the `LOOKUP_THREADS`."""
    return await to_thread.run_sync(function, *arguments, limiter=_lookups())


@lru_cache
def _lookups() -> CapacityLimiter:
    return CapacityLimiter(LOOKUP_THREADS)


@lru_cache
def get_engine() -> Engine:
    """Returns the connection pool of this process. It tries a connection each time: the server may have
    restarted."""
    settings = get_settings()
    engine = create_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        json_deserializer=read_back,
        connect_args={"connect_timeout": math.ceil(settings.database_connect_limit.total_seconds())},
    )
    Connector(_statements).install(engine)
    return engine


def limit_statements(limit: timedelta) -> None:
    """Lets no statement of this process take longer, on connections that are opened from here on.

    Processes that somebody or something waits for call it as they start. The command line does not:
    migrating, importing or erasing takes as long as it takes.
    """
    _statements.limit = limit


class UnitOfWork(Session):
    """The session of one request or task, and what is to be sent once it has committed."""

    def __init__(self) -> None:
        super().__init__(get_engine(), expire_on_commit=False)
        self.to_send: list[Callable[[], None]] = []


def session() -> UnitOfWork:
    """Opens a session of this process's database. `commit` or `Session.close` ends it."""
    return UnitOfWork()


def commit(db: UnitOfWork) -> None:
    """Ends a unit of work: commits all its writes, then sends the wake-ups."""
    try:
        db.commit()
    finally:
        db.close()
    for send in db.to_send:
        send()  # does not wait for the broker: should it be away, a worker finds the row within seconds


@contextmanager
def unit_of_work() -> Iterator[UnitOfWork]:
    """Commits all writes of one request or task, or none. Wake-ups leave only after the commit."""
    db = session()
    try:
        yield db
    except BaseException:
        db.close()
        raise
    commit(db)


def after_commit(db: Session, send: Callable[[], None]) -> None:
    """Calls `send` once this unit of work has committed. Every session of ours is a `UnitOfWork`."""
    assert isinstance(db, UnitOfWork)
    db.to_send.append(send)
