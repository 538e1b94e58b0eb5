"""Feedback on stored completions, data sets made of them, how long projects keep them, and what was erased.

Revision ID: c7f20d5e8a13
Revises: 7e40b1c9d3f6
Create Date: 2026-12-02 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "c7f20d5e8a13"
down_revision = "7e40b1c9d3f6"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("now()")
ZERO = sa.text("0")
CLAIMABLE = sa.text("status IN ('queued', 'running')")
STATUSES = "'queued', 'running', 'succeeded', 'failed', 'cancelled'"
LISTED = ("feedback", "datasets")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("projects", sa.Column("completions_kept", sa.Interval()))
    _create_feedback()
    _create_datasets()
    _create_erasures()
    for table in LISTED:
        op.execute(
            f"CREATE TRIGGER leave_place AFTER DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION leave_place('project_id')"
        )


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("completion_id", sa.String(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column("reward", sa.Float()),
        sa.Column("correction", sa.String()),
        sa.Column("reference", JSON),
        sa.Column("comment", sa.String()),
        sa.Column("metadata", JSON),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_feedback_project_id_projects"),
        sa.ForeignKeyConstraint(
            ["completion_id"],
            ["chat_completions.id"],
            name="fk_feedback_completion_id_chat_completions",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "reward IS NOT NULL OR correction IS NOT NULL OR reference IS NOT NULL", name="ck_feedback_says_something"
        ),
    )
    op.create_index("ix_feedback_project_created", "feedback", ["project_id", "created_at", "id"])
    op.create_index("ix_feedback_completion_id", "feedback", ["completion_id"])


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("file_id", sa.String()),
        sa.Column("report", JSON),
        sa.Column("error", JSON),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("progress", JSON),
        sa.Column("attempt", sa.Integer(), server_default=ZERO, nullable=False),
        sa.Column("lease_owner", sa.String()),
        sa.Column("lease_expires_at", MOMENT),
        sa.Column("fruitless_attempts", sa.Integer(), server_default=ZERO, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_datasets_project_id_projects"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="ck_datasets_status"),
    )
    columns = ["project_id", "created_at", "id"]
    op.create_index("ix_datasets_project_created", "datasets", columns)
    op.create_index("ix_datasets_claimable", "datasets", columns, postgresql_where=CLAIMABLE)
    op.create_index("ix_datasets_file_id", "datasets", ["file_id"])
    op.create_table(
        "dataset_sources",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("completion_id", sa.String(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("feedback_ids", JSON, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "line", "part", name="pk_dataset_sources"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_dataset_sources_dataset_id_datasets", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_dataset_sources_completion_id", "dataset_sources", ["completion_id"])


def _create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("day", sa.Date()),
        sa.Column("requested_by", sa.String()),
        sa.Column("filter", JSON),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("datasets", JSON, nullable=False),
        sa.Column("created_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.UniqueConstraint("project_id", "day", name="uq_erasures_project_id"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_erasures_organization_id_organizations"
        ),
        sa.CheckConstraint("cause IN ('request', 'retention', 'project')", name="ck_erasures_cause"),
    )
    op.create_index("ix_erasures_project_created", "erasures", ["project_id", "created_at", "id"])
    op.create_index("ix_erasures_organization_created", "erasures", ["organization_id", "created_at", "id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("erasures", "dataset_sources", "datasets", "feedback"):
        op.drop_table(table)
    op.drop_column("projects", "completions_kept")
