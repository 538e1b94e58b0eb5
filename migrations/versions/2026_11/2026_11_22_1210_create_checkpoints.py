"""What a run saved.

Revision ID: a858e85c661c
Revises: e0ea604efe34
Create Date: 2026-11-22 12:10
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "a858e85c661c"
down_revision = "e0ea604efe34"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("model_name", sa.String(), nullable=False),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("manifest", JSONB(), nullable=False),
        sa.Column("kl", sa.Double(), nullable=False),
        sa.Column("kl_stderr", sa.Double(), nullable=False),
        sa.Column("valid_reward", sa.Double(), nullable=True),
        sa.Column("valid_reward_stderr", sa.Double(), nullable=True),
        sa.Column("advantage_over_base", sa.Double(), nullable=True),
        sa.Column("advantage_stderr", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_checkpoints_job_id_jobs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("job_id", "step", name="uq_checkpoints_step"),
        sa.UniqueConstraint("model_name", name="uq_checkpoints_model_name"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("checkpoints")
