"""Database sessions: one request or task is one transaction; wake-ups leave after the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar

import structlog
from sqlalchemy import DateTime, Engine, MetaData, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from app.settings import get_settings

log = structlog.get_logger(__name__)

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


@lru_cache
def get_engine() -> Engine:
    """The connection pool of this process."""
    url = sqlalchemy_url(get_settings().database_url)
    return create_engine(url, pool_pre_ping=True, pool_size=10, connect_args={"connect_timeout": 5})


def session() -> Session:
    """A session of this process's database; the caller commits and closes it."""
    return sessionmaker(get_engine(), expire_on_commit=False)()


@contextmanager
def unit_of_work() -> Iterator[Session]:
    """All writes of one request or task, or none; wake-ups leave only after the commit."""
    with session() as db:
        db.info["after_commit"] = []
        with db.begin():
            yield db
        for send in db.info["after_commit"]:
            send()  # logs and swallows broker errors: the waker finds the row within seconds


def after_commit(db: Session, send: Callable[[], None]) -> None:
    """Call `send` once this unit of work has committed."""
    db.info.setdefault("after_commit", []).append(send)
