"""Connections to Postgres give up on an answer that does not come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from app.db import sqlalchemy_url
from app.db_connection import Connector, LimitedConnection, NoAnswer, StatementLimit

LONG = "SELECT pg_sleep(60)"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """It has one connection, whose statements may take a fifth of a second."""
    made = create_engine(sqlalchemy_url(database_url), pool_size=1, max_overflow=0)
    Connector(StatementLimit(timedelta(seconds=0.2))).install(made)
    yield made
    made.dispose()


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_the_connection_stays(
    engine: Engine,
) -> None:
    before = backend(engine)
    with pytest.raises(OperationalError, match="statement timeout"), engine.connect() as connection:
        connection.execute(text(LONG))
    assert backend(engine) == before


def test_a_server_that_owes_an_answer_is_given_up(database_url: str) -> None:
    with LimitedConnection.connect(database_url) as connection:
        with (
            pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s"),
            connection.answering_within(0.2),
        ):
            connection.execute(LONG)
        assert connection.closed


def test_a_connection_that_was_lost_while_idle_is_replaced(engine: Engine, database_url: str) -> None:
    before = backend(engine)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [before])
    assert backend(engine) != before


def test_without_a_limit_a_statement_takes_as_long_as_it_takes(database_url: str) -> None:
    made = create_engine(sqlalchemy_url(database_url))
    Connector(StatementLimit()).install(made)
    with made.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "0"
    made.dispose()
