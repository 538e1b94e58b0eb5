"""Remembers for a day where deleted rows stood in their lists, so that a page behind one goes on there.

Rows of tables that are listed in pages leave their places by themselves: the trigger `leave_place` writes
them, whatever deletes the rows. Nothing of a row is kept but a digest of its table, owner and id, which also
makes a place its owner's alone.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, LargeBinary, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base

KEPT = timedelta(days=1)
"""How long a walk may take over a list from one page to the next."""


class LeftPlace(Base):
    """Where a row stood that was deleted."""

    __tablename__ = "left_places"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the table's name, the owner and the id, with spaces between."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime | None]
    """Of rows that are listed by their last change, too."""
    seq: Mapped[int | None] = mapped_column(BigInteger)
    """Of rows that are listed by their number."""
    left_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


def find(db: Session, table: str, owner: str, row_id: str) -> LeftPlace | None:
    """Returns where a row of that table and owner stood, or None if it never was or left longer ago."""
    digest = hashlib.sha256(f"{table} {owner} {row_id}".encode()).digest()
    return db.get(LeftPlace, digest)


def was_erased(db: Session, job_id: str) -> bool:
    """Tells whether there was such a job until lately: each leaves a place in a list of its own, too."""
    return find(db, "jobs", job_id, job_id) is not None


def remove_old(db: Session, limit: int) -> int:
    """Forgets some places that were left more than a day ago. Returns how many."""
    old = select(LeftPlace.digest).where(LeftPlace.left_at < func.now() - KEPT).limit(limit)
    gone = db.scalars(delete(LeftPlace).where(LeftPlace.digest.in_(old)).returning(LeftPlace.digest))
    return len(gone.all())
