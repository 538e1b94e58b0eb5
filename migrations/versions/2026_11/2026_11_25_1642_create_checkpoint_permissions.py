"""Projects that may use another's checkpoint.

Revision ID: c9e2706f8d13
Revises: a4d81c5e7b20
Create Date: 2026-11-25 16:42
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c9e2706f8d13"
down_revision = "a4d81c5e7b20"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "checkpoint_permissions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"],
            ["checkpoints.id"],
            name="fk_checkpoint_permissions_checkpoint_id_checkpoints",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_checkpoint_permissions_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoint_permissions"),
        sa.UniqueConstraint("checkpoint_id", "project_id", name="uq_checkpoint_permissions_project"),
    )
    op.create_index("ix_checkpoint_permissions_project_id", "checkpoint_permissions", ["project_id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("checkpoint_permissions")
