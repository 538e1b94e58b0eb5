"""Due deliveries are looked for endpoint by endpoint, and those on their way by their claim.

Revision ID: 7d2f94a1c6e8
Revises: 5d08e3f1b9a6
Create Date: 2026-11-25 16:35
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7d2f94a1c6e8"
down_revision = "5d08e3f1b9a6"
branch_labels = None
depends_on = None

TABLE = "webhook_deliveries"
PENDING = sa.text("status = 'pending'")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_webhook_deliveries_due", TABLE)
    op.create_index(
        "ix_webhook_deliveries_due", TABLE, ["endpoint_id", "next_at", "seq"], postgresql_where=PENDING
    )
    op.create_index("ix_webhook_deliveries_claimed", TABLE, ["claimed_until"], postgresql_where=PENDING)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_webhook_deliveries_claimed", TABLE)
    op.drop_index("ix_webhook_deliveries_due", TABLE)
    op.create_index("ix_webhook_deliveries_due", TABLE, ["next_at"], postgresql_where=PENDING)
