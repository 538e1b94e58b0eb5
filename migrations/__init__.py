"""Alembic migrations. A package, so that an installed service finds them (app/migrate.py)."""
