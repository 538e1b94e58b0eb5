"""Forms of checkpoints that workers make.

Revision ID: 5d1f0c83ab27
Revises: 91c4d7e2b05a
Create Date: 2026-12-01 18:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5d1f0c83ab27"
down_revision = "91c4d7e2b05a"
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
        "exports",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        moment("started_at"),
        moment("finished_at"),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("manifest", JSON, nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=ZERO, nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        moment("lease_expires_at"),
        sa.Column("fruitless_attempts", sa.Integer(), server_default=ZERO, nullable=False),
        sa.CheckConstraint("status IN ('queued', 'running', 'ready', 'failed')", name="ck_exports_status"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_exports_project_id_projects"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"],
            ["checkpoints.id"],
            name="fk_exports_checkpoint_id_checkpoints",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_exports"),
        sa.UniqueConstraint("checkpoint_id", "format", name="uq_exports_format"),
    )
    columns = ["project_id", "created_at", "id"]
    op.create_index("ix_exports_claimable", "exports", columns, postgresql_where=CLAIMABLE)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("exports")
