"""Jobs can be paused.

Revision ID: 3f0a6b1d9c52
Revises: c27f0a9be518
Create Date: 2026-11-25 16:11
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3f0a6b1d9c52"
down_revision = "c27f0a9be518"
branch_labels = None
depends_on = None

BEFORE = "'validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled'"
AFTER = "'validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
NAME_BEFORE = "ck_jobs_ck_jobs_status"  # the naming convention had been applied twice


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f(NAME_BEFORE), "jobs")
    op.create_check_constraint(op.f("ck_jobs_status"), "jobs", f"status IN ({AFTER})")


def downgrade() -> None:
    """A paused job goes on: the schema before knows no other way to keep it."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("UPDATE jobs SET status = 'queued' WHERE status = 'paused'")
    op.drop_constraint(op.f("ck_jobs_status"), "jobs")
    op.create_check_constraint(op.f(NAME_BEFORE), "jobs", f"status IN ({BEFORE})")
    op.drop_column("jobs", "pause_requested_at")
