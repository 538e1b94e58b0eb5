"""What an adapter stands on: the model that its job has started from, and whether others can have that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cards import service as cards
from app.checkpoints.models import Checkpoint
from app.exports.archive import Member, on_disk, stored
from app.jobs.models import Job
from app.models import service as models
from app.models.models import Model
from app.storage import Storage
from methods.model_files.licence import licence_in
from methods.model_files.template import visible_files

MOST_BYTES = 50_000_000
"""How large a base may be that comes along with an adapter: small ones have no name that others know."""
IN_DOWNLOAD = "base"
"""The folder of a download that holds the base."""
GGUF, OF_A_FILE = ".gguf", "sha256:"
"""How the name of a model ends that was added as one file, and how its revision begins."""
MODEL = "model/"
"""Where a checkpoint keeps its merged model."""


class Base(NamedTuple):
    """The model that a job has started from.

    Attributes:
        name: as the job calls it.
        hub: its id on the hub, as an operator has recorded it.
        root_hub: that of the model from which all training has started, through any number of jobs.
        added: the folder that was given as the model.
        has_own_template: its chat template is another than the one that was published with it.
        folder: where its files lie, if on this machine; of a tuned model None.
        storage_key: where those of a tuned model lie.
        sums: the SHA-256 of its files by path below the folder, as far as they are known.
        stored: of a tuned model, bytes and SHA-256 of its files.
        is_another: the name means other weights now than those that the job has started from.
    """

    name: str
    hub: str | None
    root_hub: str | None
    revision: str | None
    added: str | None
    licence: str | None
    has_own_template: bool
    folder: Path | None
    storage_key: str | None
    sums: Mapping[str, str]
    stored: Mapping[str, Mapping[str, Any]]
    is_another: bool


def base_of(db: Session, job: Job) -> Base | None:
    """Returns the model that a job has started from; None if it is gone."""
    model = models.find(db, job.project_id, job.model)
    if model is None:
        return None
    return _added(db, job, model) if model.base is None else _tuned(db, job, model)


def _added(db: Session, job: Job, model: Model) -> Base:
    origin = model.origin or {}
    folder = Path(str(model.folder))
    read = dict(cards.weights_of_base(db, job.id))
    now: dict[str, str] = origin.get("weights") or {}
    return Base(
        name=model.name,
        hub=origin.get("hub"),
        root_hub=origin.get("hub"),
        revision=_commit(origin.get("revision")),
        added=_loadable(origin.get("folder"), folder),
        licence=origin.get("licence") or licence_in(folder),
        has_own_template=origin.get("template") is not None,
        folder=folder if folder.is_dir() else None,
        storage_key=None,
        sums=cards.files_of_base(db, job.id),
        stored={},
        is_another=bool(read) and any(read.get(name) != sha256 for name, sha256 in now.items()),
    )


def _loadable(given: str | None, folder: Path) -> str | None:
    """Returns the folder that was given, or the one that was made where that was a single file."""
    return str(folder) if given is not None and given.endswith(GGUF) else given


def _commit(revision: str | None) -> str | None:
    """Returns a revision that the hub may know; that of a single file is its hash."""
    return None if revision is not None and revision.startswith(OF_A_FILE) else revision


def _tuned(db: Session, job: Job, model: Model) -> Base:
    """Returns a model that was tuned here: whole, as the job has read it."""
    root = models.origin(db, job.project_id, model)
    found = select(Checkpoint.manifest).where(
        Checkpoint.job_id == model.job_id, Checkpoint.storage_key == model.storage_key
    )
    files = (db.scalars(found).first() or {"files": {}})["files"]
    origin = (root.origin or {}) if root else {}
    licence = origin.get("licence") or (licence_in(Path(str(root.folder))) if root else None)
    return Base(
        name=model.name,
        hub=None,
        root_hub=origin.get("hub"),
        revision=None,
        added=None,
        licence=licence,
        has_own_template=False,
        folder=None,
        storage_key=model.storage_key,
        sums={},
        stored={name.removeprefix(MODEL): facts for name, facts in files.items() if name.startswith(MODEL)},
        is_another=False,
    )


def members(base: Base, storage: Storage) -> list[Member]:
    """Returns the files of a base as they lie in a download. None of them is read."""
    if base.storage_key is not None:
        prefix = f"{base.storage_key}/{MODEL}"
        return [
            stored(storage, f"{prefix}{name}", f"{IN_DOWNLOAD}/{name}", facts)
            for name, facts in sorted(base.stored.items())
        ]
    if base.folder is None:
        return []
    paths = [(path.relative_to(base.folder).as_posix(), path) for path in visible_files(base.folder)]
    return [on_disk(path, f"{IN_DOWNLOAD}/{name}", base.sums.get(name)) for name, path in paths]


def why_not(base: Base | None, storage: Storage) -> str | None:
    """Returns why a base can neither be named nor come along; None where it can."""
    if base is None:
        return "the model that the job has started from is gone"
    if base.is_another:
        return f"'{base.name}' means other weights now than those that the job has started from"
    if base.hub is not None:
        return None
    files = members(base, storage)
    if not files:
        return f"'{base.name}' has no public name, and its files are not on the machine of the API"
    size = sum(member.size for member in files)
    if size > MOST_BYTES:
        advice = "" if base.storage_key else " (`cherry models add --hub ORG/NAME` records a public name)"
        return (
            f"'{base.name}' has no public name, and its {size / 1e6:,.0f} MB are more than the"
            f" {MOST_BYTES / 1e6:.0f} MB that come along{advice}"
        )
    return None
