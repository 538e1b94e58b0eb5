"""Where deleted rows stood in their lists, written by a trigger.

Revision ID: 7c1e5a9d3b42
Revises: 5b0d7e3c91af
Create Date: 2026-11-29 14:30
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7c1e5a9d3b42"
down_revision = "5b0d7e3c91af"
branch_labels = None
depends_on = None

LISTED = {
    "projects": "organization_id",
    "admin_api_keys": "organization_id",
    "api_keys": "project_id",
    "service_accounts": "project_id",
    "files": "project_id",
    "jobs": "project_id",
    "checkpoint_permissions": "checkpoint_id",
    "webhook_endpoints": "project_id",
    "webhook_deliveries": "endpoint_id",
}
"""The tables that are listed in pages, with the column that says whose list a row is in."""

LEAVE_PLACE = """
CREATE FUNCTION leave_place() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  gone jsonb := to_jsonb(OLD);
  named text := TG_TABLE_NAME || ' ' || (gone ->> TG_ARGV[0]) || ' ' || OLD.id;
BEGIN
  INSERT INTO left_places (digest, created_at, seq)
  VALUES (sha256(convert_to(named, 'UTF8')), OLD.created_at, (gone ->> 'seq')::bigint)
  ON CONFLICT (digest) DO NOTHING;
  RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "left_places",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("left_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_left_places"),
    )
    op.create_index("ix_left_places_left_at", "left_places", ["left_at"])
    op.execute(LEAVE_PLACE)
    for table, owner in LISTED.items():
        op.execute(
            f"CREATE TRIGGER leave_place AFTER DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION leave_place('{owner}')"
        )
    op.execute(
        "CREATE TRIGGER leave_trace AFTER DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION leave_place('id')"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in LISTED:
        op.execute(f"DROP TRIGGER leave_place ON {table}")
    op.execute("DROP TRIGGER leave_trace ON jobs")
    op.execute("DROP FUNCTION leave_place()")
    op.drop_table("left_places")
