"""Claims a key, keeps its response, gives it up. Follows Stripe's rules; decision 0009 says where we differ.

A claim is a conditional write with a lease, as a job's is. A handler's own transaction keeps the response
beside what it has done (`keep`), so that a process killed anywhere leaves both or neither.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db import after_commit
from app.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from app.idempotency.models import IdempotencyKey
from app.ids import random_id

KEPT_FOR = timedelta(hours=24)
LEASE = timedelta(seconds=30)
MAX_KEY = 255
SHOWN_ONCE = re.compile(
    r"/v1/(webhook_endpoints(/[^/]+/rotate_secret)?"
    r"|organization/(admin_api_keys|projects/[^/]+/service_accounts(/[^/]+/api_keys)?))"
)
"""Paths whose responses hold a secret: it is stored nowhere to be read again, so neither is the response."""


@dataclass
class KeyedRequest:
    """A request that carries a key."""

    owner: str
    key: str
    path: str
    request_id: str
    token: str = ""
    """Set once the key is claimed for this request."""
    is_kept: bool = False
    """The response is committed."""
    lease: timedelta = LEASE
    """How long the key is held without a renewal."""


class KeptResponse(NamedTuple):
    status: int
    media_type: str
    body: bytes
    request_id: str


def fingerprint(method: str, path: str, query: bytes, parameters: Any) -> bytes:
    """Returns a digest of what makes a request the same. The order of keys in an object does not count."""
    text = json.dumps([method, path, query.decode("latin-1"), parameters], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def begin(db: Session, keyed: KeyedRequest, fingerprint: bytes) -> KeptResponse | None:
    """Claims the key and returns None, or returns the response that was given before.

    Raises `IdempotencyKeyReused`, or `IdempotencyKeyInUse` while an earlier request is carried out.
    """
    token = random_id("", 16)
    values = {
        "fingerprint": fingerprint,
        "token": token,
        "locked_until": func.now() + keyed.lease,
        "created_at": func.now(),
        "request_id": keyed.request_id,
        "status": None,
        "media_type": None,
        "body": None,
    }
    is_over = IdempotencyKey.created_at <= func.now() - KEPT_FOR
    is_abandoned = and_(
        IdempotencyKey.status.is_(None),
        IdempotencyKey.locked_until < func.now(),
        IdempotencyKey.fingerprint == fingerprint,
    )
    claim = insert(IdempotencyKey).values(owner=keyed.owner, key=keyed.key, **values)
    claim = claim.on_conflict_do_update(
        index_elements=["owner", "key"], set_=values, where=or_(is_over, is_abandoned)
    )
    if db.execute(claim.returning(IdempotencyKey.token)).first():
        keyed.token = token
        return None
    row = db.scalars(select(IdempotencyKey).where(*_is(keyed))).first()
    if row is None or (row.status is None and row.fingerprint == fingerprint):
        raise IdempotencyKeyInUse(keyed.key)
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused(keyed.key)
    return _kept(row)


def keep(db: Session, keyed: KeyedRequest, status: int, media_type: str, body: bytes) -> None:
    """Writes the response into this transaction.

    Raises `IdempotencyKeyInUse` if another request has the key by now: this one took too long, and must undo.
    """
    shown = None if SHOWN_ONCE.fullmatch(keyed.path) and status < 400 else body
    own = (*_is(keyed), IdempotencyKey.token == keyed.token, IdempotencyKey.status.is_(None))
    response = {"status": status, "media_type": media_type, "body": shown}
    written = update(IdempotencyKey).where(*own).values(response).returning(IdempotencyKey.token)
    if not db.execute(written).first():
        raise IdempotencyKeyInUse(keyed.key)

    def note() -> None:
        keyed.is_kept = True

    after_commit(db, note)


def renew(db: Session, keyed: KeyedRequest) -> None:
    """Extends the lease of a request that is still being carried out."""
    own = (*_is(keyed), IdempotencyKey.token == keyed.token, IdempotencyKey.status.is_(None))
    db.execute(update(IdempotencyKey).where(*own).values(locked_until=func.now() + keyed.lease))


def give_up(db: Session, keyed: KeyedRequest) -> None:
    """Frees the key: nothing was carried out, or the response is of a kind that is not kept."""
    own = (*_is(keyed), IdempotencyKey.token == keyed.token, IdempotencyKey.status.is_(None))
    db.execute(delete(IdempotencyKey).where(*own))


def remove_expired(db: Session, limit: int) -> int:
    """Deletes some keys that are over. Returns how many."""
    own = IdempotencyKey
    over = (
        select(own.owner, own.key)
        .where(own.created_at <= func.now() - KEPT_FOR)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = db.execute(over).all()
    for owner, key in rows:
        db.execute(delete(own).where(own.owner == owner, own.key == key))
    return len(rows)


def _kept(row: IdempotencyKey) -> KeptResponse:
    assert row.status is not None
    if row.body is None:
        raise IdempotencyKeyReused(
            row.key, "was carried out, and its answer held a secret that is shown once and not stored"
        )
    return KeptResponse(row.status, row.media_type or "", row.body, row.request_id)


def _is(keyed: KeyedRequest) -> tuple[Any, ...]:
    return (IdempotencyKey.owner == keyed.owner, IdempotencyKey.key == keyed.key)
