"""Rollouts taken apart: thoughts, answer and calls.

Revision ID: 5e0d83b9a6f1
Revises: 9b14f7c2e5d8
Create Date: 2026-12-03 10:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5e0d83b9a6f1"
down_revision = "9b14f7c2e5d8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("rollouts", sa.Column("message", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("rollouts", "message")
