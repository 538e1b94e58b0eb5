"""Table of models: base models on disk and models tuned here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class ModelAlias(Base):
    """A name that stands for a base model, such as OpenAI's for the one that takes its place here."""

    __tablename__ = "model_aliases"

    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    """Name of a base model."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Base):
    """A base model (no project: everybody's) or a tuned one (one project's)."""

    __tablename__ = "models"
    __table_args__ = (
        Index("uq_models_shared_name", "name", unique=True, postgresql_where=text("project_id IS NULL")),
        Index("uq_models_project_name", "project_id", "name", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """Internal: model_..."""
    name: Mapped[str]
    """What users say: cherry-nano, or ft:cherry-nano:org:suffix:AbCd1234."""
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    base: Mapped[str | None]
    """Name of the base model a tuned one started from."""
    folder: Mapped[str | None]
    """Base models: folder with safetensors weights, config and tokenizer, on every worker."""
    storage_key: Mapped[str | None]
    """Tuned models: prefix in storage, as `checkpoints.storage_key`."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    cannot_show: Mapped[list[Any] | None]
    """What the chat template cannot show, by the names of methods/template_gaps.py; None where unknown."""
    methods: Mapped[list[Any] | None]
    """Base models: the methods by which jobs may train it, and what is tuned from it; None for all."""
    origin: Mapped[dict[str, Any] | None]
    """Base models that somebody has added: `app.models.adding.Origin`; None of others, and of older rows."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
