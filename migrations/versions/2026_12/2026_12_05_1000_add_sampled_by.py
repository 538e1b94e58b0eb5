"""Rollouts name the weights that a server sampled them by.

Revision ID: d41b7e9f0c26
Revises: 6b2f94d0e7c3
Create Date: 2026-12-05 10:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "d41b7e9f0c26"
down_revision = "6b2f94d0e7c3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("rollouts", sa.Column("sampled_by", sa.String()))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("rollouts", "sampled_by")
