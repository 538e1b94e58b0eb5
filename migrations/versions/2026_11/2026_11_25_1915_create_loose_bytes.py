"""Bytes in storage that are no file yet, or not any more.

Revision ID: 5b0d7e3c91af
Revises: 0b9f4e7a2d68
Create Date: 2026-11-25 19:15
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "5b0d7e3c91af"
down_revision = "0b9f4e7a2d68"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "loose_bytes",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("clear_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_taken", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_loose_bytes"),
    )
    op.create_index("ix_loose_bytes_clear_at", "loose_bytes", ["clear_at"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("loose_bytes")
