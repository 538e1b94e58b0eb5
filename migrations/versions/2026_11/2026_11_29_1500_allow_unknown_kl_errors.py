"""The standard error of a KL may be unknown: that of a single probe prompt.

Revision ID: 7d1c4a90e2b6
Revises: 5b0d7e3c91af
Create Date: 2026-11-29 15:00
"""

from __future__ import annotations

from alembic import op

revision = "7d1c4a90e2b6"
down_revision = "5b0d7e3c91af"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("checkpoints", "kl_stderr", nullable=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("UPDATE checkpoints SET kl_stderr = 0 WHERE kl_stderr IS NULL")
    op.alter_column("checkpoints", "kl_stderr", nullable=False)
