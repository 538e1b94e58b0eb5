"""Reads what a new job can be made of: models with their sizes, and the project's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboard.create.rows import Look, look
from app.files.models import File
from app.files.service import list_files
from app.jobs.models import Job
from app.models import service as models
from app.models.models import Model
from methods.model_files.glance import at_a_glance

FILES = 200
"""Files to choose from, the newest. Chosen, not measured: more would be searched for, not chosen."""
PURPOSE = "fine-tune"


class Choice(NamedTuple):
    """A model to choose, and what it is in a few words."""

    name: str
    words: str


class Data(NamedTuple):
    """A file that was chosen, and what was seen of it."""

    file: File
    look: Look


def model_choices(db: Session, project_id: str, chosen: str) -> list[Choice]:
    """Returns the models that a job can start from, base models first; the one that is chosen too, such as a
    checkpoint."""
    found = models.list_models(db, project_id)
    choices = [Choice(model.name, _words(model)) for model in found]
    choices += [Choice(alias.name, f"stands for {alias.model}") for alias in models.list_aliases(db)]
    if chosen and all(one.name != chosen for one in choices):
        choices.append(Choice(chosen, "chosen before"))
    return choices


def _words(model: Model) -> str:
    if model.base is not None:
        return f"tuned from {model.base}"
    glance = at_a_glance(Path(model.folder or ""))
    if glance is None:
        return "size not known here"
    context = f", {glance.context:,} tokens of context" if glance.context else ""
    return f"{in_words(glance.parameters)} parameters{context}"


def in_words(number: int) -> str:
    """Returns a large number as people say it: 135 million, 1.5 billion."""
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def base_of(db: Session, project_id: str, name: str) -> Model | None:
    """Returns the base model, with a folder, of what a name stands for."""
    model = models.find(db, project_id, name) if name else None
    return models.origin(db, project_id, model) if model is not None and model.base is not None else model


def file_choices(db: Session, project_id: str, chosen: Sequence[str]) -> list[File]:
    """Returns the newest files that jobs may read, and those that are chosen."""
    page = list_files(db, project_id, purpose=PURPOSE, order="desc", after=None, limit=FILES)
    here = {file.id for file in page.rows}
    others = [one for one in chosen if one and one not in here]
    mine = (File.project_id == project_id, File.id.in_(others))
    return [*page.rows, *(db.scalars(select(File).where(*mine)) if others else ())]


def data(files: Sequence[File], file_id: str, method: str, *, is_training: bool) -> Data | None:
    """Returns a chosen file and what a method would see of it."""
    file = next((one for one in files if one.id == file_id), None)
    if file is None:
        return None
    return Data(file, look(file.storage_key, file.bytes, method, is_training=is_training))


def job(db: Session, project_id: str, job_id: str) -> Job | None:
    """Returns a job of the project."""
    return db.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()
