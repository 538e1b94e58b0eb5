"""Brings a database to the schema of this version, from wherever the package is installed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import migrations


def upgrade(url: str, revision: str = "head") -> None:
    """Migrates up to `revision`. Several processes may call it at once; nothing happens if it is there."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Migrates down to `revision` ("base" removes every table and its rows)."""
    command.downgrade(_config(url), revision)


def is_at_head(connection: Connection) -> bool:
    """Tells whether the database has exactly the schema of this version."""
    return MigrationContext.configure(connection).get_current_heads() == heads()


@lru_cache
def heads() -> tuple[str, ...]:
    """Returns the revisions that nothing follows: one, unless two branches were merged."""
    return tuple(ScriptDirectory.from_config(_config("")).get_heads())


def _config(url: str) -> Config:
    config = Config(attributes={"url": url})
    folder = str(Path(migrations.__path__[0]))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("recursive_version_locations", "true")  # one folder a month
    return config
