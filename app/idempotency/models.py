"""Table of idempotency keys and the responses that were given."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class IdempotencyKey(Base):
    """One key of one owner. While it has no status, whoever holds `token` is carrying it out."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    """The project of the caller; of an admin key, its organisation."""
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of method, path, query and parameters."""
    token: Mapped[str]
    """Fencing: only its holder may keep a response."""
    locked_until: Mapped[datetime]
    """Renewed while the request runs; afterwards its process is taken to be dead."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    status: Mapped[int | None]
    media_type: Mapped[str | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """As it was sent; None for a response that holds a secret."""
    request_id: Mapped[str]
    """The id of the request that was carried out."""
