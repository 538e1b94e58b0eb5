"""The turns of rollouts with tools.

Revision ID: 9b14f7c2e5d8
Revises: c7f20d5e8a13
Create Date: 2026-12-03 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "9b14f7c2e5d8"
down_revision = "c7f20d5e8a13"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("rollouts", sa.Column("episode", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("rollouts", "episode")
