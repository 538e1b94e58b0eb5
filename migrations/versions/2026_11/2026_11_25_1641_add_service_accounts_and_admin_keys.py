"""Service accounts, admin keys, keys that expire, projects that are archived.

Revision ID: a4d81c5e7b20
Revises: 5d80e1c47b29
Create Date: 2026-11-25 16:41
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "a4d81c5e7b20"
down_revision = "5d80e1c47b29"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("projects", sa.Column("archived_at", MOMENT, nullable=True))
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_service_accounts_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_service_accounts"),
    )
    op.create_index("ix_service_accounts_project_id", "service_accounts", ["project_id"])
    op.add_column("api_keys", sa.Column("expires_at", MOMENT, nullable=True))
    op.add_column("api_keys", sa.Column("service_account_id", sa.String(), nullable=True))
    op.create_foreign_key(
        "fk_api_keys_service_account_id_service_accounts",
        "api_keys",
        "service_accounts",
        ["service_account_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index("ix_api_keys_service_account_id", "api_keys", ["service_account_id"])
    op.create_table(
        "admin_api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("redacted", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_admin_api_keys_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_admin_api_keys"),
        sa.UniqueConstraint("digest", name="uq_admin_api_keys_digest"),
    )
    op.create_index("ix_admin_api_keys_organization_id", "admin_api_keys", ["organization_id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("admin_api_keys")
    op.drop_column("api_keys", "service_account_id")
    op.drop_column("api_keys", "expires_at")
    op.drop_table("service_accounts")
    op.drop_column("projects", "archived_at")
