"""Evals, their runs and output items; jobs know theirs, and projects take turns at runs.

Revision ID: 5d2e8c0a41f7
Revises: 5d1f0c83ab27
Create Date: 2026-12-02 09:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5d2e8c0a41f7"
down_revision = "5d1f0c83ab27"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True)
EXACT = sa.JSON(none_as_null=True)
NOW = sa.text("now()")
ZERO = sa.text("0")
CLAIMABLE = sa.text("status IN ('queued', 'in_progress')")
LISTED = {"evals": "project_id", "eval_runs": "eval_id"}
"""The tables that are listed in pages by age, with the column that says whose list a row is in."""
LEAVE_PLACE = """
CREATE OR REPLACE FUNCTION leave_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  gone jsonb := to_jsonb(OLD);
  named text := TG_TABLE_NAME || ' ' || (gone ->> TG_ARGV[0]) || ' ' || OLD.id;
BEGIN
  INSERT INTO left_places (digest, created_at, {column}seq)
  VALUES (sha256(convert_to(named, 'UTF8')), OLD.created_at, {value}(gone ->> 'seq')::bigint)
  ON CONFLICT (digest) DO NOTHING;
  RETURN NULL;
END
$$
"""
WITH_UPDATES = {"column": "updated_at, ", "value": "(gone ->> 'updated_at')::timestamptz, "}
WITHOUT = {"column": "", "value": ""}


def moment(name: str, *, is_set: bool = False) -> sa.Column[object]:
    default = {"server_default": NOW} if is_set else {}
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not is_set, **default)


def text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String(), nullable=nullable)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("projects", moment("last_evaluation_at"))
    op.add_column("jobs", text("eval_id", nullable=True))
    op.add_column("left_places", moment("updated_at"))
    op.execute(LEAVE_PLACE.format(**WITH_UPDATES))
    op.create_table(
        "evals",
        text("id"),
        text("project_id"),
        text("name"),
        sa.Column("metadata", JSON),
        sa.Column("data_source_config", EXACT, nullable=False),
        sa.Column("testing_criteria", EXACT, nullable=False),
        text("job_id", nullable=True),
        moment("created_at", is_set=True),
        moment("updated_at", is_set=True),
        sa.PrimaryKeyConstraint("id", name="pk_evals"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_evals_project_id_projects"),
    )
    op.create_index("ix_evals_project_created", "evals", ["project_id", "created_at", "id"])
    op.create_index("ix_evals_project_updated", "evals", ["project_id", "updated_at", "id"])
    op.create_table(
        "eval_runs",
        text("id"),
        text("eval_id"),
        text("project_id"),
        text("status"),
        text("name"),
        text("model"),
        sa.Column("metadata", JSON),
        sa.Column("data_source", EXACT, nullable=False),
        sa.Column("job_step", sa.Integer()),
        moment("created_at", is_set=True),
        moment("started_at"),
        moment("finished_at"),
        sa.Column("error", JSON),
        sa.Column("total", sa.Integer()),
        sa.Column("result_counts", JSON, nullable=False),
        sa.Column("per_model_usage", JSON, nullable=False),
        sa.Column("per_testing_criteria_results", JSON, nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=ZERO, nullable=False),
        text("lease_owner", nullable=True),
        moment("lease_expires_at"),
        moment("progress_at"),
        sa.Column("fruitless_attempts", sa.Integer(), server_default=ZERO, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_eval_runs"),
        sa.ForeignKeyConstraint(
            ["eval_id"], ["evals.id"], name="fk_eval_runs_eval_id_evals", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_eval_runs_project_id_projects"),
        sa.UniqueConstraint("eval_id", "job_step", name="uq_eval_runs_eval_id"),
        sa.CheckConstraint(
            "status IN ('queued', 'in_progress', 'completed', 'failed', 'canceled')",
            name="ck_eval_runs_status",
        ),
    )
    op.create_index("ix_eval_runs_eval_created", "eval_runs", ["eval_id", "created_at", "id"])
    claimable = ["project_id", "created_at", "id"]
    op.create_index("ix_eval_runs_claimable", "eval_runs", claimable, postgresql_where=CLAIMABLE)
    op.create_table(
        "eval_output_items",
        text("id"),
        text("run_id"),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("datasource_item_id", sa.Integer(), nullable=False),
        text("status"),
        sa.Column("datasource_item", EXACT, nullable=False),
        sa.Column("given", EXACT),
        sa.Column("results", EXACT, nullable=False),
        sa.Column("sample", EXACT),
        moment("created_at", is_set=True),
        sa.PrimaryKeyConstraint("id", name="pk_eval_output_items"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["eval_runs.id"], name="fk_eval_output_items_run_id_eval_runs", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("run_id", "seq", name="uq_eval_output_items_run_id"),
        sa.CheckConstraint(
            "status IN ('waiting', 'pass', 'fail', 'error')", name="ck_eval_output_items_status"
        ),
    )
    op.create_index("ix_eval_output_items_status", "eval_output_items", ["run_id", "status", "seq"])
    for table, owner in LISTED.items():
        op.execute(
            f"CREATE TRIGGER leave_place AFTER DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION leave_place('{owner}')"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("eval_output_items", "eval_runs", "evals"):
        op.drop_table(table)
    op.execute(LEAVE_PLACE.format(**WITHOUT))
    op.drop_column("left_places", "updated_at")
    op.drop_column("jobs", "eval_id")
    op.drop_column("projects", "last_evaluation_at")
