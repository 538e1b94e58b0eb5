"""The room that a paused job waits for.

Revision ID: 7d41c0a96e35
Revises: 7d1c4a90e2b6
Create Date: 2026-11-29 15:10
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "7d41c0a96e35"
down_revision = "7d1c4a90e2b6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    column = sa.Column("waits_for_room", postgresql.JSONB(none_as_null=True), nullable=True)
    op.add_column("jobs", column)
    waiting = sa.text("waits_for_room IS NOT NULL")
    op.create_index("ix_jobs_waits_for_room", "jobs", ["id"], postgresql_where=waiting)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_jobs_waits_for_room", "jobs")
    op.drop_column("jobs", "waits_for_room")
