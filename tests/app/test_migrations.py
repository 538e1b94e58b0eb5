"""Migrations build exactly the tables of app/tables.py, and take them away again."""

from __future__ import annotations

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from app import migrate
from app.db import sqlalchemy_url
from app.tables import Base


def test_up_matches_the_models_and_down_leaves_nothing(database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(database_url))
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, Base.metadata) == []
            assert migrate.is_at_head(connection)
        migrate.downgrade(database_url, "base")
        with engine.connect() as connection:
            assert inspect(connection).get_table_names() == ["alembic_version"]
            assert not migrate.is_at_head(connection)
        code = f"from app.migrate import upgrade; upgrade({database_url!r})"
        both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        with engine.connect() as connection:
            assert migrate.is_at_head(connection)
    finally:
        engine.dispose()
