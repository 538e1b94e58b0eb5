"""Makes, rotates and lists the keys that sign cards. A private key is in the database only sealed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.cards.models import CardKey
from app.cards.signature import ALGORITHM, key_id
from app.db import unit_of_work
from app.sealing import NoSecretKey, Sealer
from app.settings import Settings

log = structlog.get_logger(__name__)


def current(db: Session, sealer: Sealer) -> CardKey:
    """Returns the key that signs. The first call of a service makes it; of several at once, one does."""
    in_use = select(CardKey).where(CardKey.algorithm == ALGORITHM, CardKey.retired_at.is_(None))
    found = db.scalars(in_use).first()
    if found is None:
        _add(db, sealer)
        found = db.scalars(in_use).one()  # this one, or that of whoever was first
    return found


def ensure(settings: Settings) -> None:
    """Makes the first key as a service starts. Where that cannot be, the first card makes it."""
    try:
        with unit_of_work() as db:
            current(db, Sealer(settings))
    except (NoSecretKey, SQLAlchemyError) as problem:
        log.warning("no_card_key", problem=str(problem))


def signer(db: Session, sealer: Sealer) -> Ed25519PrivateKey:
    """Returns the private key that signs. Raises `NotOpened` if CHERRY_SECRET_KEY is another one now."""
    key = current(db, sealer)
    return Ed25519PrivateKey.from_private_bytes(sealer.open(key.private_key, key.id))


def rotate(db: Session, sealer: Sealer) -> CardKey:
    """Retires the key that signs and makes another. What it has signed is checked with it as before."""
    in_use = (CardKey.algorithm == ALGORITHM, CardKey.retired_at.is_(None))
    db.execute(update(CardKey).where(*in_use).values(retired_at=func.clock_timestamp()))
    return current(db, sealer)


def every(db: Session) -> Sequence[CardKey]:
    """Returns all keys that there ever were, newest first."""
    return db.scalars(select(CardKey).order_by(CardKey.created_at.desc(), CardKey.id)).all()


def _add(db: Session, sealer: Sealer) -> None:
    """Makes a key, unless another transaction has just made one: that is waited for, and then stands."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    made = {
        "id": key_id(public),
        "algorithm": ALGORITHM,
        "public_key": public,
        "private_key": sealer.seal(private.private_bytes_raw(), key_id(public)),
        "created_at": func.clock_timestamp(),
    }
    db.execute(insert(CardKey).values(made).on_conflict_do_nothing())
