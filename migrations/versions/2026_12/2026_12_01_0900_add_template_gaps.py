"""What the chat templates of models cannot show.

Revision ID: 3e8b1f60c7d2
Revises: 5c9e27d1a0b4
Create Date: 2026-12-01 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "3e8b1f60c7d2"
down_revision = "5c9e27d1a0b4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("cannot_show", postgresql.JSONB(none_as_null=True)))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("models", "cannot_show")
