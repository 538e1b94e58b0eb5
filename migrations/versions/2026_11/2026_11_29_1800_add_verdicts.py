"""A job's verdict, and what was measured of each checkpoint beside rewards and KL.

Revision ID: 3e9a15c7d082
Revises: 2f6b8c0d4e91
Create Date: 2026-11-29 18:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "3e9a15c7d082"
down_revision = "2f6b8c0d4e91"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("verdict", postgresql.JSONB(none_as_null=True)))
    op.add_column("checkpoints", sa.Column("trust", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("checkpoints", "trust")
    op.drop_column("jobs", "verdict")
