"""Names that stand for base models.

Revision ID: 0b9f4e7a2d68
Revises: 5d7e3c1b9f20
Create Date: 2026-11-25 16:46
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0b9f4e7a2d68"
down_revision = "5d7e3c1b9f20"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "model_aliases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_model_aliases"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("model_aliases")
