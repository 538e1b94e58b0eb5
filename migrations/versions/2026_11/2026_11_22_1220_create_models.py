"""Base models and tuned ones.

Revision ID: f1bfa85f9d5e
Revises: a858e85c661c
Create Date: 2026-11-22 12:20
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "f1bfa85f9d5e"
down_revision = "a858e85c661c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "models",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("base", sa.String(), nullable=True),
        sa.Column("folder", sa.String(), nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_models_job_id_jobs"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_models_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
    )
    op.create_index("ix_models_job_id", "models", ["job_id"], unique=False)
    op.create_index("uq_models_project_name", "models", ["project_id", "name"], unique=True)
    op.create_index(
        "uq_models_shared_name",
        "models",
        ["name"],
        unique=True,
        postgresql_where=sa.text("project_id IS NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("models")
