"""Opens connections to Postgres that wait for an answer no longer than they may.

A server that hangs, or whose machine is gone, never answers, and libpq would wait for it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

T = TypeVar("T")

PING_SECONDS = 2.0
"""How long a connection that was idle may take to answer before it is taken for lost."""
AWAY_SECONDS = 1.0
"""How long a server that did not answer is left alone: requests that queue up need not all wait in vain."""
CANCEL_SECONDS = 2.0
"""How much longer than a statement may take its end is waited for: a server that is well ends it itself."""
LOOK_SECONDS = 0.1
"""Between two looks at the clock while an answer is owed; psycopg's own pause."""


@dataclass
class StatementLimit:
    """How long a statement may take on connections that are opened from now on; None for any time."""

    limit: timedelta | None = None


class NoAnswer(psycopg.OperationalError):
    """Says that the server owes an answer for too long. The connection is closed."""


class LimitedConnection(psycopg.Connection[TupleRow]):
    """A connection that gives up, and closes itself, when an answer takes too long."""

    answer_seconds: float | None = None
    """How long an answer may take; None for any time."""
    was_used = False

    def wait(self, gen: PQGen[T], interval: float = LOOK_SECONDS, timeout: float | None = None) -> T:
        options = {} if timeout is None else {"timeout": timeout}  # unknown to psycopg 3.3.0
        if self.answer_seconds is not None:
            gen = _within(gen, self.answer_seconds)
        try:
            return super().wait(gen, interval, **options)
        except NoAnswer:
            self.close()
            raise

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Lets no answer take longer than so many seconds meanwhile."""
        usual, self.answer_seconds = self.answer_seconds, seconds
        try:
            yield
        finally:
            self.answer_seconds = usual


def _within(gen: PQGen[T], seconds: float) -> PQGen[T]:
    """Passes on what psycopg's waiting and its protocol tell each other, for so long."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise NoAnswer(f"the database did not answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        value: T = end.value
        return value


class Connector:
    """Opens the connections of one engine, and leaves a server alone for a moment that did not answer."""

    def __init__(self, statements: StatementLimit) -> None:
        self._statements = statements
        self._away_until = float("-inf")

    def install(self, engine: Engine) -> None:
        """Lets an engine open its connections here and ask each whether it lives before it is used again."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "handle_error", self._note)

        @event.listens_for(engine, "checkout")
        def ping(connection: LimitedConnection, *_: Any) -> None:
            if not connection.was_used:
                connection.was_used = True
                return
            try:
                with connection.answering_within(PING_SECONDS):
                    engine.dialect.do_ping(connection)  # type: ignore[arg-type]  # it is psycopg's
            except psycopg.Error as problem:
                raise DisconnectionError(str(problem)) from problem

    def _connect(self, _dialect: Any, _record: Any, args: Any, options: dict[str, Any]) -> LimitedConnection:
        if time.monotonic() < self._away_until:
            raise psycopg.OperationalError("the database did not answer a moment ago")
        try:
            connection = LimitedConnection.connect(*args, **options)
            if self._statements.limit is not None:
                self._limit(connection, self._statements.limit)
        except (psycopg.errors.ConnectionTimeout, NoAnswer):
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        return connection

    def _limit(self, connection: LimitedConnection, limit: timedelta) -> None:
        seconds = limit.total_seconds()
        connection.answer_seconds = seconds + CANCEL_SECONDS
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {round(seconds * 1000)}".encode())
        connection.autocommit = False

    def _note(self, context: Any) -> None:
        if isinstance(context.original_exception, NoAnswer):
            self._away_until = time.monotonic() + AWAY_SECONDS
