"""Answers a request for a checkpoint's files, from the API and from the dashboard alike."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from app.cards import service as cards
from app.checkpoints import service as checkpoints
from app.db import unit_of_work
from app.exports import forms
from app.exports import service as exports
from app.exports.schemas import ExportOut
from app.exports.use import Format
from app.http.ranges import Download, is_ranged, respond
from app.jobs import service as jobs
from app.settings import get_settings
from app.storage import get_storage


def sent(
    project_id: str, job_id: str, checkpoint_id: str, form: Format | None, headers: Mapping[str, str]
) -> Response | ExportOut:
    """Returns a form of a checkpoint as a tar, whole or in the part that the headers ask for, or how far a
    worker is with it. None is all files as they were stored.

    Raises `NotFound`, `ExportRefused`, `ExportFailed`, `CheckpointDamaged` or `RangeNotSatisfiable`. No
    transaction is open while bytes move.
    """
    storage = get_storage()
    with unit_of_work() as db:
        job = jobs.get(db, project_id, job_id)
        checkpoint = checkpoints.get_kept(db, job.id, checkpoint_id)
        beside = cards.beside_download(db, job, get_settings())
        made = exports.made_or_asked(db, job, checkpoint, form, beside) if form else None
    if isinstance(made, ExportOut):
        return made
    with checkpoints.faults_told(checkpoint_id):
        if made is None or form is None:
            archive = checkpoints.whole(checkpoint, storage, beside)
        else:
            archive = forms.archive(made, form, storage)
        digest = exports.digests.of(archive, from_memory=is_ranged(headers))
    found = Download(archive.filename, "application/x-tar", archive.size, digest, archive.chunks)
    return respond(found, headers)
