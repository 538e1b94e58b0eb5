"""Base models as an operator keeps them: where they came from, what replacing changes, and what removing."""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.jobs.models import ACTIVE, Job
from app.models.folders import BaseModelInvalid
from app.models.models import Model, ModelAlias
from app.preflights.models import ACTIVE as UNFINISHED
from app.preflights.models import Preflight
from methods.model_files.configs import CONFIG
from methods.model_files.hub_cache import snapshot_of
from methods.model_files.licence import licence_in
from methods.model_files.template import kept_files, with_template
from methods.model_files.weights import WEIGHTS

MADE = "models"
"""The folder of `data_dir` for model folders that were given another chat template."""
DOWNLOADED = Path(".cache", "huggingface", "download", f"{CONFIG}.metadata")
"""Where the Hugging Face hub's client notes, in its first line, the commit that it has downloaded."""
HASH_SHOWN = 12
MOST_NAMED = 5
"""Jobs that a refusal names. Chosen, not measured."""


class Origin(NamedTuple):
    """Says where a base model came from.

    Attributes:
        folder: as it was given.
        source: what its config calls the model that it was saved from, such as a name on the hub.
        revision: as it was given, or as the hub's client has noted it.
        added_at: ISO 8601.
        added_by: the user of the command, if known.
        weights: the sha256 of each file of weights.
        template: the sha256 of the chat template that was given in place of the folder's.
        hub: its id on the hub, ORG/NAME, as it was given, or as a folder of the hub's cache tells it.
        licence: as it was given, or as the folder says it.
    """

    folder: str
    source: str | None
    revision: str | None
    added_at: str
    added_by: str | None
    weights: dict[str, str]
    template: str | None
    hub: str | None = None
    licence: str | None = None


class Removed(NamedTuple):
    """Says what went with a base model and what stays."""

    folder: str
    aliases: list[str]
    tuned: int
    jobs: int


def find_base(db: Session, name: str, *, locked: bool = False) -> Model | None:
    """Returns the base model of a name."""
    query = select(Model).where(Model.name == name, Model.project_id.is_(None))
    return db.scalars(query.with_for_update() if locked else query).first()


def origin_of(
    folder: Path,
    revision: str | None,
    weights: dict[str, str],
    template: str | None,
    *,
    hub: str | None = None,
    licence: str | None = None,
) -> Origin:
    """Returns where a model in a folder came from, as far as its files and its place say so.

    What a config calls its source is no id of the hub: often it names the model that this one was tuned from.
    """
    cached = snapshot_of(folder)
    return Origin(
        folder=str(folder),
        source=_source(folder),
        revision=revision or (cached.revision if cached else _downloaded_revision(folder)),
        added_at=datetime.now(UTC).isoformat(timespec="seconds"),
        added_by=_user(),
        weights=weights,
        template=None if template is None else sha256(template.encode()).hexdigest(),
        hub=hub or (cached.hub if cached else None),
        licence=licence or licence_in(folder),
    )


def make_folder(data_dir: Path, name: str, folder: Path, origin: Origin, template: str) -> Path:
    """Makes the folder of a model with another template, whole or not at all, and returns where it is.

    What differs in any file has a place of its own, so that no folder changes while it is read.
    """
    others = [path for path in kept_files(folder) if path.suffix != WEIGHTS]
    contents = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in others}
    what = json.dumps([contents, origin.weights, origin.template])
    place = (data_dir / MADE / f"{name}-{sha256(what.encode()).hexdigest()[:HASH_SHOWN]}").absolute()
    if not place.exists():
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with_template(folder, partial, template)
        partial.replace(place)
    return place


def remove_made(data_dir: Path, folder: str | None) -> bool:
    """Removes a folder that was made for a model, and says whether it was one; any other stays."""
    is_made = folder is not None and Path(folder).parent == (data_dir / MADE).absolute()
    if is_made:
        shutil.rmtree(str(folder), ignore_errors=True)
    return is_made


def changes(model: Model, origin: Origin, methods: Sequence[str] | None) -> list[str]:
    """Returns what a name would mean otherwise from now on, as sentences."""
    before = model.origin or {}
    told = []
    if (was := before.get("folder", model.folder)) != origin.folder:
        told.append(f"The folder was {was} and becomes {origin.folder}.")
    if "weights" not in before:
        told.append("Whether its weights change is not known: no hashes of the old ones were kept.")
    elif before["weights"] != origin.weights:
        told.append("Its weights become others.")
    if before.get("revision") != origin.revision:
        told.append(f"The revision was {before.get('revision')} and becomes {origin.revision}.")
    for name, what in (("hub", "id on the hub"), ("licence", "licence")):
        if (was := before.get(name)) != (now := getattr(origin, name)):
            told.append(f"The {what} was {was} and becomes {now}.")
    if before.get("template") != origin.template:
        told.append("Its chat template becomes another.")
    if (model.methods and sorted(model.methods)) != (methods and sorted(methods)):
        was, now = (", ".join(each) if each else "all" for each in (model.methods, methods))
        told.append(f"The methods that jobs may use were {was} and become {now}.")
    return told


def has_same_weights(model: Model, origin: Origin) -> bool:
    """Says whether a base model was added with these very weights and this template."""
    before = model.origin or {}
    return (before.get("weights"), before.get("template")) == (origin.weights, origin.template)


def check_unused(db: Session, name: str, doing: str) -> None:
    """Raises `BaseModelInvalid` while jobs or preflights that are not over start from a base model."""
    jobs = db.scalars(
        select(Job.id).where(Job.model == name, Job.status.in_(ACTIVE)).order_by(Job.created_at)
    )
    preflights = db.scalars(
        select(Preflight.id).where(Preflight.model == name, Preflight.status.in_(UNFINISHED))
    )
    if used := [*jobs, *preflights]:
        more = f" and {len(used) - MOST_NAMED} more" if len(used) > MOST_NAMED else ""
        raise BaseModelInvalid(
            f"{name} cannot be {doing} while unfinished jobs use it: {', '.join(used[:MOST_NAMED])}{more}."
            " Wait until they are over, or cancel them."
        )


def remove(db: Session, name: str) -> Removed:
    """Forgets a base model and the aliases that stand for it; its folder stays, and what was tuned from it.

    Raises `BaseModelInvalid` where there is none, or an unfinished job uses it.
    """
    removed = would_remove(db, name)
    db.execute(delete(ModelAlias).where(ModelAlias.model == name))
    db.execute(delete(Model).where(Model.name == name, Model.project_id.is_(None)))
    return removed


def would_remove(db: Session, name: str) -> Removed:
    """Returns what `remove` would take and leave. Raises `BaseModelInvalid` as it does."""
    model = find_base(db, name, locked=True)
    if model is None:
        raise BaseModelInvalid(f"there is no base model '{name}': `cherry models list` shows them.")
    check_unused(db, name, "removed")
    tuned = db.scalars(select(func.count()).select_from(Model).where(Model.base == name)).one()
    jobs = db.scalars(select(func.count()).select_from(Job).where(Job.model == name)).one()
    return Removed(str(model.folder), aliases_of(db, name), tuned, jobs)


def aliases_of(db: Session, name: str) -> list[str]:
    """Returns the names that stand for a base model."""
    return list(db.scalars(select(ModelAlias.name).where(ModelAlias.model == name).order_by(ModelAlias.name)))


def jobs_of(db: Session, name: str) -> dict[str, int]:
    """Returns how many jobs of all projects have started from a model, by their status."""
    counts = select(Job.status, func.count()).where(Job.model == name).group_by(Job.status)
    return dict(iter(db.execute(counts.order_by(Job.status))))


def _source(folder: Path) -> str | None:
    """Returns what the config calls its model; configs of transformers 5 say it no more."""
    try:
        said: Any = json.loads((folder / CONFIG).read_text("utf-8")).get("_name_or_path")
    except (OSError, ValueError):
        return None
    return said if isinstance(said, str) and said else None


def _downloaded_revision(folder: Path) -> str | None:
    try:
        return (folder / DOWNLOADED).read_text("utf-8").splitlines()[0].strip() or None
    except (OSError, ValueError, IndexError):
        return None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody with this number has a name
        return None
