"""Forms of a checkpoint as their owners ask for them. The worker's side is app/exports/runs.py."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from threading import Lock

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from app import queue
from app.cards import service as cards
from app.checkpoints.models import Checkpoint
from app.errors import ServerError
from app.exports import base as bases
from app.exports import forms, use
from app.exports.archive import Archive
from app.exports.forms import ExportRefused, Source
from app.exports.models import ACTIVE, Export
from app.exports.schemas import ExportOut, FormOut
from app.exports.use import FORMATS, Format
from app.files.models import LooseBytes
from app.ids import random_id
from app.jobs.models import Job
from app.models.models import Model
from app.settings import get_settings
from app.storage import Storage

FAILURE_STANDS = timedelta(minutes=1)
"""How long everybody is told why an export failed. Whoever asks after that has it tried again: what was
missing may be there. Chosen, not measured."""
UNASKED = timedelta(days=7)
"""Exports that nobody has wanted for so long are removed, and made again for whoever asks. Chosen, not
measured."""
RETRY_SECONDS = 2
"""When a client is told to ask again. Chosen, not measured."""
MADE: tuple[Format, ...] = ("gguf",)
"""Forms that a worker makes; the others are streamed out of what the run has stored."""
MOST_DIGESTS = 256
"""Archives whose sums a process remembers. Chosen, not measured."""


class ExportFailed(ServerError):
    """A worker could not make a form. What asks again after a minute has it tried again."""

    code = "export_failed"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The checkpoint could not be written in that form: {why}", headers={"x-should-retry": "false"}
        )


def offers(
    db: Session, job: Job, checkpoints: Sequence[Checkpoint], storage: Storage
) -> dict[str, list[FormOut]]:
    """Returns the forms of each checkpoint of a job, by its id, with the lines that use them."""
    base = bases.base_of(db, job) if checkpoints else None
    why_no_base = bases.why_not(base, storage)
    known = _refusals(db, [row.id for row in checkpoints])
    found = {}
    for row in checkpoints:
        source = Source(row, _name(db, job, row), job.config or {}, base, {}, {})
        path = f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{row.id}/download?format="
        found[row.id] = [
            FormOut(
                format=form,
                path=path + form,
                refused=(why := forms.refusal(row, form, why_no_base) or known.get((row.id, form))),
                use={} if why else use.lines(forms.use_of(source, form)),
            )
            for form in FORMATS
        ]
    return found


def _refusals(db: Session, checkpoint_ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """Returns why workers have refused forms of checkpoints, as far as they were asked, by id and form."""
    refused = (Export.status == "failed", Export.error["code"].astext == ExportRefused.code)
    rows = db.scalars(select(Export).where(Export.checkpoint_id.in_(checkpoint_ids), *refused))
    return {(row.checkpoint_id, row.format): str((row.error or {})["message"]) for row in rows}


def made_or_asked(
    db: Session, job: Job, checkpoint: Checkpoint, form: Format, beside: Mapping[str, bytes]
) -> Source | ExportOut:
    """Returns what a form is made of, or how far a worker is with that, who is asked for it.

    `beside` are the files of the job's card. Raises `ExportRefused` or `ExportFailed` where a worker has just
    said that it cannot be.
    """
    made = None
    if form in MADE:
        export = _wanted(db, job, checkpoint, form)
        if export.status != "ready":
            return ExportOut.of(export)
        assert export.storage_key is not None
        assert export.manifest is not None
        made = (export.storage_key, export.manifest["files"])
    return Source(
        checkpoint=checkpoint,
        name=_name(db, job, checkpoint),
        config=job.config or {},
        base=bases.base_of(db, job),
        card=json.loads(cards.card_of(db, job, get_settings()).document)["card"],
        beside=beside,
        made=made,
    )


def state_of(db: Session, checkpoint_id: str, form: Format) -> Export | None:
    """Returns how far a form is that a worker makes, or None where nobody has asked for it."""
    mine = Export.checkpoint_id == checkpoint_id, Export.format == form
    return db.scalars(select(Export).where(*mine)).first()


def _wanted(db: Session, job: Job, checkpoint: Checkpoint, form: Format) -> Export:
    """Returns the export of a checkpoint, queued unless it is there."""
    db.scalars(
        select(Checkpoint.id).where(Checkpoint.id == checkpoint.id).with_for_update(key_share=True)
    ).one()
    export = state_of(db, checkpoint.id, form)
    if export is None:
        export = Export(
            id=random_id("ckptexp_"), project_id=job.project_id, checkpoint_id=checkpoint.id, format=form
        )
        db.add(export)
        db.flush()
        queue.wake_validator(db)
    elif export.status == "failed":
        _retry_or_raise(db, export)
    export.asked_at = db.scalars(select(func.now())).one()
    db.flush()
    return export


def _retry_or_raise(db: Session, export: Export) -> None:
    """Queues a failed export again, or tells its failure while that is new."""
    stands = Export.finished_at > func.now() - FAILURE_STANDS
    if db.scalars(select(Export.id).where(Export.id == export.id, stands)).first() is not None:
        error = export.error or {}
        if error.get("code") == ExportRefused.code:
            raise ExportRefused(str(error["message"]))
        raise ExportFailed(str(error.get("message")))
    anew = {
        "status": "queued",
        "error": None,
        "created_at": func.now(),
        "started_at": None,
        "finished_at": None,
    }
    db.execute(update(Export).where(Export.id == export.id, Export.status == "failed").values(anew))
    db.refresh(export)
    queue.wake_validator(db)


def remove_due(db: Session, most: int) -> int:
    """Removes exports whose checkpoint is not kept any more, or that nobody has wanted for long.

    What is stored of them goes with the bytes that have no row.
    """
    dropped = select(Checkpoint.id).where(Checkpoint.storage_key.is_(None))
    old = and_(Export.asked_at < func.now() - UNASKED, Export.status.not_in(ACTIVE))
    due = select(Export, Checkpoint.job_id).join(Checkpoint, Checkpoint.id == Export.checkpoint_id)
    due = due.where(or_(Export.checkpoint_id.in_(dropped), old)).limit(most)
    rows = db.execute(due.with_for_update(of=Export, skip_locked=True)).all()
    for export, job_id in rows:
        db.add(LooseBytes(key=f"{prefix_of(job_id, export.id)}/", clear_at=func.now(), is_taken=True))
        db.delete(export)
    db.flush()
    return len(rows)


def prefix_of(job_id: str, export_id: str) -> str:
    """Returns below what an export keeps its files, a folder for each attempt."""
    return f"jobs/{job_id}/exports/{export_id}"


def _name(db: Session, job: Job, checkpoint: Checkpoint) -> str:
    """Returns what the model of a checkpoint is called: the delivered one as the job's tuned model."""
    own = (Model.job_id == job.id, Model.name == job.fine_tuned_model)
    delivered = select(Model.storage_key).where(*own)
    is_delivered = job.fine_tuned_model and db.scalars(delivered).first() == checkpoint.storage_key
    return str(job.fine_tuned_model) if is_delivered else checkpoint.model_name


class Digests:
    """The sums of archives that this process has read, by what they are made of."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def of(self, archive: Archive, *, from_memory: bool) -> bytes:
        """Returns the SHA-256 of an archive. `from_memory` spares reading all of it to go on with a part.

        Raises as `Archive.digest`.
        """
        recipe = archive.recipe()
        with self._lock:
            known = self._known.get(recipe) if recipe and from_memory else None
        if known is not None:
            return known
        digest = archive.digest()
        if recipe:
            with self._lock:
                self._known[recipe] = digest
                if len(self._known) > MOST_DIGESTS:
                    self._known.popitem(last=False)
        return digest


digests = Digests()
