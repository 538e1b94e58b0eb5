"""Regrades and their results.

Revision ID: 7e40b1c9d3f6
Revises: 5d2e8c0a41f7
Create Date: 2026-12-02 10:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "7e40b1c9d3f6"
down_revision = "5d2e8c0a41f7"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
EXACT = sa.JSON(none_as_null=True)
NOW = sa.text("now()")
ZERO = sa.text("0")
CLAIMABLE = sa.text("status IN ('queued', 'running')")


def moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=True)


def text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String(), nullable=nullable)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "regrades",
        text("id"),
        text("project_id"),
        text("job_id", nullable=True),
        text("status"),
        sa.Column("source", JSON, nullable=False),
        sa.Column("grader", EXACT, nullable=False),
        sa.Column("baseline", EXACT, nullable=True),
        sa.Column("metadata", JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        moment("started_at"),
        moment("finished_at"),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("done", sa.Integer(), server_default=ZERO, nullable=False),
        sa.Column("comparison", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=ZERO, nullable=False),
        text("lease_owner", nullable=True),
        moment("lease_expires_at"),
        moment("progress_at"),
        sa.Column("fruitless_attempts", sa.Integer(), server_default=ZERO, nullable=False),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_regrades_status"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_regrades_project_id_projects"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_regrades_job_id_jobs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_regrades"),
    )
    columns = ["project_id", "created_at", "id"]
    op.create_index("ix_regrades_project_created", "regrades", columns)
    op.create_index("ix_regrades_job", "regrades", ["job_id", "created_at", "id"])
    op.create_index("ix_regrades_claimable", "regrades", columns, postgresql_where=CLAIMABLE)
    op.create_table(
        "regrade_results",
        text("regrade_id"),
        sa.Column("seq", sa.Integer(), nullable=False),
        text("ref"),
        text("data_row"),
        text("text", nullable=True),
        sa.Column("reward_before", sa.Float(), nullable=True),
        text("failure_before", nullable=True),
        sa.Column("reward", sa.Float(), nullable=True),
        text("failure", nullable=True),
        text("failure_message", nullable=True),
        sa.Column("parts", JSON, nullable=False),
        text("reason"),
        sa.Column("difference", sa.Float(), nullable=True),
        sa.Column("distance", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["regrade_id"], ["regrades.id"], name="fk_regrade_results_regrade_id_regrades", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("regrade_id", "seq", name="pk_regrade_results"),
        sa.UniqueConstraint("regrade_id", "ref", name="uq_regrade_results_regrade_id"),
    )
    op.create_index("ix_regrade_results_distance", "regrade_results", ["regrade_id", "distance", "seq"])
    op.execute(
        "CREATE TRIGGER leave_place AFTER DELETE ON regrades "
        "FOR EACH ROW EXECUTE FUNCTION leave_place('project_id')"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("regrade_results")
    op.drop_table("regrades")
