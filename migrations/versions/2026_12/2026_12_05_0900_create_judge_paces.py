"""When each judge with a limit of calls a minute may be called next.

Revision ID: 6b2f94d0e7c3
Revises: 5e0d83b9a6f1
Create Date: 2026-12-05 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "6b2f94d0e7c3"
down_revision = "5e0d83b9a6f1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "judge_paces",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_judge_paces")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("judge_paces")
