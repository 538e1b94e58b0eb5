"""Rollouts keep which parts of their grade failed.

Revision ID: 5e0c83b17a94
Revises: d41b7e9f0c26
Create Date: 2026-12-05 11:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5e0c83b17a94"
down_revision = "d41b7e9f0c26"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("rollouts", sa.Column("part_failures", postgresql.JSONB()))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("rollouts", "part_failures")
