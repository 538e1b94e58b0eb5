"""Where else a run is shown.

Revision ID: 5d7e3c1b9f20
Revises: c9e2706f8d13
Create Date: 2026-11-25 16:45
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "5d7e3c1b9f20"
down_revision = "c9e2706f8d13"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("integrations", JSONB(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("jobs", "integrations")
