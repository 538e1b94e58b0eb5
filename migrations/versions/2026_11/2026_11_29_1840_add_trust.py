"""What says what a result is worth: verdicts, canaries, run cards and the keys that sign them.

Revision ID: 8c1e5a7d2f60
Revises: 2f6b8c0d4e91
Create Date: 2026-11-29 18:40
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8c1e5a7d2f60"
down_revision = "2f6b8c0d4e91"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("verdict", postgresql.JSONB(none_as_null=True)))
    op.add_column("jobs", sa.Column("canary_file", sa.String()))
    op.add_column("checkpoints", sa.Column("trust", postgresql.JSONB(none_as_null=True)))
    op.create_table(
        "card_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("algorithm", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_card_keys"),
    )
    op.create_index(
        "uq_card_keys_current",
        "card_keys",
        ["algorithm"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "run_cards",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), nullable=True),
        sa.Column("document", sa.String(), nullable=True),
        sa.Column("markdown", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_run_cards_job_id_jobs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_run_cards"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("run_cards")
    op.drop_table("card_keys")
    op.drop_column("checkpoints", "trust")
    op.drop_column("jobs", "canary_file")
    op.drop_column("jobs", "verdict")
