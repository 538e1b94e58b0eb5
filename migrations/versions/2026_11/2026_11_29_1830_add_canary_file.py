"""A job may bring texts of its own for the canary.

Revision ID: 7c41d9e0b6a8
Revises: 3e9a15c7d082
Create Date: 2026-11-29 18:30
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7c41d9e0b6a8"
down_revision = "3e9a15c7d082"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("canary_file", sa.String()))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("jobs", "canary_file")
