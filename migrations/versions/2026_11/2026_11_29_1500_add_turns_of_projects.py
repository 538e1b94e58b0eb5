"""Projects take turns at the workers.

Revision ID: 7c41e9d05b3f
Revises: 7c1e5a9d3b42
Create Date: 2026-11-29 15:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7c41e9d05b3f"
down_revision = "7c1e5a9d3b42"
branch_labels = None
depends_on = None

TURNS = ("last_validation_at", "last_training_at")
CLAIMABLE = sa.text("status IN ('validating_files', 'queued', 'running')")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in TURNS:
        op.add_column("projects", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_jobs_claimable", table_name="jobs")
    op.create_index(
        "ix_jobs_claimable", "jobs", ["project_id", "created_at", "id"], postgresql_where=CLAIMABLE
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_jobs_claimable", table_name="jobs")
    op.create_index("ix_jobs_claimable", "jobs", ["created_at"], postgresql_where=CLAIMABLE)
    for name in reversed(TURNS):
        op.drop_column("projects", name)
