"""How migrations reach the database: the URL given by app/migrate.py, else the settings'."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from app.db import sqlalchemy_url
from app.settings import get_settings
from app.tables import Base

ONE_AT_A_TIME = 0x43_68_65_72_72_79
"""Advisory lock: of several processes that start at once, one migrates and the others wait."""


def run_migrations() -> None:
    url = context.config.attributes.get("url") or get_settings().database_url
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_AT_A_TIME})
        connection.commit()  # the lock belongs to the session, not to this transaction
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("Migrations run against a live database only (alembic upgrade without --sql).")
run_migrations()
