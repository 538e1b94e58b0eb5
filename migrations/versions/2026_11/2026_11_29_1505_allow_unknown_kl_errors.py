"""The standard error of a KL may be unknown: that of a single probe prompt.

Revision ID: 7d1c4a90e2b6
Revises: 7c41e9d05b3f
Create Date: 2026-11-29 15:05
"""

from __future__ import annotations

from alembic import op

revision = "7d1c4a90e2b6"
down_revision = "7c41e9d05b3f"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("checkpoints", "kl_stderr", nullable=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("UPDATE checkpoints SET kl_stderr = 0 WHERE kl_stderr IS NULL")
    op.alter_column("checkpoints", "kl_stderr", nullable=False)
