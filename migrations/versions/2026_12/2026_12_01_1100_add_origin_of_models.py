"""Where base models came from, and the methods that jobs may use with them.

Revision ID: 91c4d7e2b05a
Revises: 9a4c2e7f1b60
Create Date: 2026-12-01 11:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "91c4d7e2b05a"
down_revision = "9a4c2e7f1b60"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("methods", postgresql.JSONB(none_as_null=True)))
    op.add_column("models", sa.Column("origin", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("models", "origin")
    op.drop_column("models", "methods")
