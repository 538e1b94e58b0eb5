"""What a job's training has used so far.

Revision ID: 5d80e1c47b29
Revises: 7d2f94a1c6e8
Create Date: 2026-11-25 16:40
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5d80e1c47b29"
down_revision = "7d2f94a1c6e8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("usage_metrics", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("jobs", "usage_metrics")
