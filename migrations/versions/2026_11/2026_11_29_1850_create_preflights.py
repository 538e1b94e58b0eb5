"""Preflights.

Revision ID: 5c9e27d1a0b4
Revises: 8c1e5a7d2f60
Create Date: 2026-11-29 18:50
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5c9e27d1a0b4"
down_revision = "8c1e5a7d2f60"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
NOW = sa.text("now()")
ZERO = sa.text("0")
CLAIMABLE = sa.text("status IN ('queued', 'running')")


def moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "preflights",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("training_file", sa.String(), nullable=False),
        sa.Column("validation_file", sa.String(), nullable=True),
        sa.Column("canary_file", sa.String(), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("method", JSON, nullable=False),
        sa.Column("resources", JSON, nullable=True),
        sa.Column("limits", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        moment("started_at"),
        moment("finished_at"),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("config", JSON, nullable=True),
        sa.Column("report", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=ZERO, nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        moment("lease_expires_at"),
        sa.Column("fruitless_attempts", sa.Integer(), server_default=ZERO, nullable=False),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_preflights_status"
        ),
        sa.CheckConstraint("stage IN ('files', 'samples')", name="ck_preflights_stage"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_preflights_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_preflights"),
    )
    columns = ["project_id", "created_at", "id"]
    op.create_index("ix_preflights_project_created", "preflights", columns)
    op.create_index("ix_preflights_claimable", "preflights", columns, postgresql_where=CLAIMABLE)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("preflights")
