"""Tables of organisations, projects and API keys."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Organization(Base):
    __tablename__ = "organizations"

    id: Mapped[str] = mapped_column(primary_key=True)
    """org-..."""
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Project(Base):
    """The tenant: every row a key can see belongs to its project."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    """proj_..."""
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]
    """When it was archived; from then on none of its keys works."""
    last_validation_at: Mapped[datetime | None]
    """When a worker last took one of its jobs to validate: projects take turns."""
    last_training_at: Mapped[datetime | None]
    """When a worker last took one of its jobs to train."""
    last_evaluation_at: Mapped[datetime | None]
    """When a worker last took one of its eval runs."""
    completions_kept: Mapped[timedelta | None]
    """How long its stored completions and responses are kept; None for as long as the operator says."""


class ServiceAccount(Base):
    """Owner of keys that belong to a program rather than to a person."""

    __tablename__ = "service_accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    """svc_acct_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    role: Mapped[str]
    """owner, member, or none: an account without a role has keys that open nothing."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KeyColumns:
    """What keys of both kinds have."""

    id: Mapped[str] = mapped_column(primary_key=True)
    """key_..."""
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    """SHA-256 of the whole key; the key itself is shown once and never stored."""
    redacted: Mapped[str]
    """The first and last characters, for lists."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ApiKey(KeyColumns, Base):
    __tablename__ = "api_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    service_account_id: Mapped[str | None] = mapped_column(
        ForeignKey("service_accounts.id", ondelete="SET NULL"), index=True
    )
    """None for a key that the operator made."""


class DashboardSession(Base):
    """Somebody has signed in to the dashboard with a key, and stays so while the key is valid."""

    __tablename__ = "dashboard_sessions"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of what the cookie holds."""
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class AdminApiKey(KeyColumns, Base):
    """A key that manages an organisation: its projects, their keys, and keys like itself."""

    __tablename__ = "admin_api_keys"

    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), index=True)
