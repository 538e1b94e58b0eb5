"""What a job asks for to train on.

Revision ID: 8c1d4f6e2a37
Revises: 5e5f7d5ead3f
Create Date: 2026-11-23 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "8c1d4f6e2a37"
down_revision = "5e5f7d5ead3f"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("resources", JSONB(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("jobs", "resources")
