"""Makes the card of a job that is over, once, and gives it to whoever may see the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.cards import keys, signature
from app.cards.contents import contents
from app.cards.markdown import markdown
from app.cards.models import RunCard
from app.cards.signature import CARD_FILE, MARKDOWN_FILE
from app.jobs.models import TERMINAL, Job
from app.sealing import NoSecretKey, NotOpened, Sealer
from app.settings import Settings

WEIGHTS = ".safetensors"
NOT_OVER = "The job is not over; this is what is known so far."


class Card(NamedTuple):
    """A card as it is handed out, for programs and for people."""

    document: str
    markdown: str


def card_of(db: Session, job: Job, settings: Settings) -> Card:
    """Returns the card of a job: the one that was signed when it was over.

    It is made and kept by the worker that ends the job, or by whoever asks first. One that cannot be signed
    says why and is not kept: a job that is not over, or a service without its CHERRY_SECRET_KEY.
    """
    kept = _kept(db, job.id)
    if kept is not None:
        return kept
    card = contents(db, job, _facts(db, job.id))
    text = markdown(card)
    document = signature.document_of(card, text)
    if job.status not in TERMINAL:
        return Card(_written(signature.unsigned(document, NOT_OVER)), text)
    try:
        private = keys.signer(db, Sealer(settings))
    except (NoSecretKey, NotOpened) as problem:
        return Card(_written(signature.unsigned(document, str(problem))), text)
    return _keep(db, job.id, Card(_written(signature.signed(document, private)), text))


def beside_download(db: Session, job: Job, settings: Settings) -> dict[str, bytes]:
    """Returns the files of a card that a download has: none before the job is over."""
    if job.status not in TERMINAL:
        return {}
    card = card_of(db, job, settings)
    return {CARD_FILE: card.document.encode(), MARKDOWN_FILE: card.markdown.encode()}


def note_facts(db: Session, job_id: str, attempt: Mapping[str, Any], made_of: Mapping[str, Any]) -> None:
    """Keeps what a training tells as it begins. The first attempt's hashes stand; each adds where it ran."""
    known = _facts(db, job_id)
    others = [each for each in known.get("attempts", []) if each["attempt"] != attempt["attempt"]]
    facts = {**made_of, **known, "attempts": [*others, dict(attempt)]}
    row = insert(RunCard).values(job_id=job_id, facts=facts)
    db.execute(row.on_conflict_do_update(index_elements=["job_id"], set_={"facts": facts}))


def weights_of_base(db: Session, job_id: str) -> tuple[tuple[str, str], ...]:
    """Returns the names of the files of weights that a job's training began from, each with its sha256."""
    files = files_of_base(db, job_id)
    return tuple(sorted((name, sha256) for name, sha256 in files.items() if name.endswith(WEIGHTS)))


def base_precision(db: Session, job_id: str) -> str:
    """Returns the precision of the base that a job trained beside, "auto" where its card does not say it."""
    attempts = _facts(db, job_id).get("attempts") or [{}]
    return str(attempts[-1].get("base_precision", "auto"))


def files_of_base(db: Session, job_id: str) -> dict[str, str]:
    """Returns the sha256 of the files that lay in the base's folder as a job's training began, by name."""
    found: dict[str, str] = (_facts(db, job_id).get("base_model") or {}).get("files", {})
    return found


def _facts(db: Session, job_id: str) -> dict[str, Any]:
    return db.scalars(select(RunCard.facts).where(RunCard.job_id == job_id)).first() or {}


def _kept(db: Session, job_id: str) -> Card | None:
    row = db.execute(select(RunCard.document, RunCard.markdown).where(RunCard.job_id == job_id)).first()
    if row is None or row.document is None or row.markdown is None:
        return None
    return Card(row.document, row.markdown)


def _keep(db: Session, job_id: str, card: Card) -> Card:
    """Keeps a card unless another process was first; returns the one that stands."""
    values = card._asdict()
    row = insert(RunCard).values(job_id=job_id, **values)
    first = RunCard.document.is_(None)
    db.execute(row.on_conflict_do_update(index_elements=["job_id"], set_=values, where=first))
    kept = _kept(db, job_id)
    assert kept is not None
    return kept


def _written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
