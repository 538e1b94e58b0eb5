"""Tables of run cards, and of the keys that sign them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class CardKey(Base):
    """A key of this service. One signs; those before it stay, so that what they signed can be checked."""

    __tablename__ = "card_keys"
    __table_args__ = (
        Index("uq_card_keys_current", "algorithm", unique=True, postgresql_where=text("retired_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """ck_... and follows from the public key."""
    algorithm: Mapped[str]
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    """Its 32 bytes."""
    private_key: Mapped[bytes] = mapped_column(LargeBinary)
    """Sealed (app/sealing.py), bound to this key's id."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]
    """When another took its place; None of the one that signs."""


class RunCard(Base):
    """What the runs of a job were made of and, once the job is over, its signed card."""

    __tablename__ = "run_cards"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    facts: Mapped[dict[str, Any] | None]
    """What only a training knows, noted as it begins: hashes of data and base, and where each attempt ran."""
    document: Mapped[str | None]
    """The card as it is handed out, byte for byte."""
    markdown: Mapped[str | None]
    """The same for people, whose hash is in the card."""
