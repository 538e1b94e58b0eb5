"""Chat completions and responses that are kept.

Revision ID: 9a4c2e7f1b60
Revises: 3e8b1f60c7d2
Create Date: 2026-12-01 10:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "9a4c2e7f1b60"
down_revision = "3e8b1f60c7d2"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)
STATUSES = "'queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled'"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "chat_completions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("metadata", JSON),
        sa.Column("messages", JSON, nullable=False),
        sa.Column("completion", JSON, nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chat_completions"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_chat_completions_project_id_projects"),
    )
    op.create_index("ix_chat_completions_project_created", "chat_completions", ["project_id", "created_at", "id"])
    op.create_index("ix_chat_completions_expires_at", "chat_completions", ["expires_at"])
    op.create_table(
        "responses",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("previous_response_id", sa.String()),
        sa.Column("input_items", JSON, nullable=False),
        sa.Column("response", JSON, nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("lease_expires_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_responses_project_id_projects"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="ck_responses_status"),
    )
    op.create_index("ix_responses_project_id", "responses", ["project_id"])
    op.create_index("ix_responses_expires_at", "responses", ["expires_at"])
    op.execute(
        "CREATE TRIGGER leave_place AFTER DELETE ON chat_completions "
        "FOR EACH ROW EXECUTE FUNCTION leave_place('project_id')"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("responses")
    op.drop_table("chat_completions")
