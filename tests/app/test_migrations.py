"""Migrations build exactly the tables of app/tables.py, and take them away again."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

import migrations
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


FOLDER = Path(migrations.__path__[0])
REPOSITORY = FOLDER.parent


def revision_files() -> set[Path]:
    return {path for path in (FOLDER / "versions").rglob("*.py") if path.name != "__init__.py"}


def test_every_revision_lies_in_the_folder_of_its_month_and_is_found_there() -> None:
    script = ScriptDirectory.from_config(Config(REPOSITORY / "alembic.ini"))
    assert {Path(revision.path) for revision in script.walk_revisions()} == revision_files()
    assert script.get_heads() == list(migrate.heads())
    for path in revision_files():
        assert path.parent == FOLDER / "versions" / path.name[: len("2026_11")]


def test_an_installed_service_has_every_revision() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["migrations"]
    assert revision_files() <= {path for pattern in patterns for path in FOLDER.glob(pattern)}
