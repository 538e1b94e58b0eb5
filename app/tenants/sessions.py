"""Sessions of the dashboard: a browser holds a number that opens nothing else, and never an API key."""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.tenants.models import ApiKey, DashboardSession
from app.tenants.service import KeyOwner, digest, valid_keys

LIFETIME = timedelta(hours=12)
"""A working day: whoever signed in does so again on the next one."""
TOKEN_BYTES = 32
"""As many bits as a digest has."""


def begin(db: Session, key_id: str) -> str:
    """Signs somebody in with a key that was found valid. Returns what the cookie holds, stored nowhere."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    db.add(DashboardSession(digest=digest(token), key_id=key_id, expires_at=func.now() + LIFETIME))
    db.flush()
    return token


def find(db: Session, token: str) -> KeyOwner | None:
    """Returns who has signed in, or None: the session is over, or its key is revoked or over by now."""
    query = valid_keys().join(DashboardSession, DashboardSession.key_id == ApiKey.id)
    running = (DashboardSession.digest == digest(token), DashboardSession.expires_at > func.now())
    row = db.execute(query.where(*running)).first()
    return KeyOwner(*row) if row else None


def end(db: Session, token: str) -> None:
    """Signs somebody out. Nothing happens if there is no such session."""
    db.execute(delete(DashboardSession).where(DashboardSession.digest == digest(token)))


def remove_ended(db: Session, limit: int) -> int:
    """Forgets some sessions whose time is over. Returns how many."""
    over = select(DashboardSession.digest).where(DashboardSession.expires_at <= func.now()).limit(limit)
    gone = (
        delete(DashboardSession).where(DashboardSession.digest.in_(over)).returning(DashboardSession.digest)
    )
    return len(db.scalars(gone).all())
