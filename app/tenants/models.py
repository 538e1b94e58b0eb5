"""Tables of organisations, projects and API keys."""

from __future__ import annotations

from datetime import datetime

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


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    """key_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    """SHA-256 of the whole key; the key itself is shown once and never stored."""
    redacted: Mapped[str]
    """For lists: the first and last characters."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
