"""Which checkpoints were made by a pause.

Revision ID: 71c2e5a8d604
Revises: 3f0a6b1d9c52
Create Date: 2026-11-25 16:12
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "71c2e5a8d604"
down_revision = "3f0a6b1d9c52"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    new = sa.Column("is_snapshot", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("checkpoints", new)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("checkpoints", "is_snapshot")
