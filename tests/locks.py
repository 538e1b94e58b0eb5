"""What the test's database waits for."""

from __future__ import annotations

from sqlalchemy import text

from app.db import unit_of_work


def waiting_for_locks() -> int:
    """How many wait for a row or a table that another transaction holds."""
    here = "wait_event_type = 'Lock' AND datname = current_database()"
    with unit_of_work() as own:  # a new look each time: within a transaction the view stays as it was
        return int(own.scalars(text(f"SELECT count(*) FROM pg_stat_activity WHERE {here}")).one())
