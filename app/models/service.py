"""Finds and registers models: base models that everybody may tune, and the tuned ones of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.errors import BadRequest, Forbidden, NotFound
from app.ids import random_id
from app.jobs.models import Job
from app.models.folders import BaseModelInvalid, check_model_folder
from app.models.models import Model, ModelAlias
from app.permissions.models import CheckpointPermission
from methods.template_gaps import RESULTS, TOOL_CALLS

BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
MAX_TOLD = 10
"""Names of models that a message lists."""
BY_ALIAS = "The operator lets another name stand for a base model: `cherry models alias add NAME MODEL`."


class AliasInvalid(Exception):
    """A name cannot stand for a model; the text says why."""


def list_models(db: Session, project_id: str) -> list[Model]:
    """Returns what the project can name: base models, then its own and those shared with it, each oldest
    first.

    Checkpoints are among them where they are shared; the project's own are listed with their jobs.
    """
    query = _visible(project_id).order_by(Model.project_id.is_not(None), Model.created_at, Model.id)
    models = list(db.scalars(query))
    named = {(model.job_id, model.storage_key) for model in models}
    shared = db.execute(_checkpoints().where(_is_shared(project_id)).order_by(Checkpoint.created_at))
    others = [_as_model(*row) for row in shared]
    return models + [model for model in others if (model.job_id, model.storage_key) not in named]


def get(db: Session, project_id: str, name: str) -> Model:
    """Returns a model by name, a checkpoint that is kept, as a model that is no row, or what an alias stands
    for.

    Raises `NotFound`.
    """
    model = find(db, project_id, name)
    if model is None:
        message = f"The model '{name}' does not exist or you do not have access to it."
        raise NotFound(f"{message} {there_are(db, project_id)}", param="model", code="model_not_found")
    return model


def remove(db: Session, project_id: str, name: str) -> None:
    """Deletes a tuned model's name; its job keeps the checkpoint. Raises `NotFound`, `Forbidden`."""
    model = get(db, project_id, name)
    if model.name != name:
        raise Forbidden(f"'{name}' is an alias of '{model.name}'; only fine-tuned models can be deleted.")
    if model.project_id is None:
        raise Forbidden(f"The model '{name}' is a base model; only fine-tuned models can be deleted.")
    if model.project_id != project_id:
        raise Forbidden(f"The model '{name}' is shared with this project; only its own can delete it.")
    if model.id is None:
        raise Forbidden(f"The model '{name}' is a checkpoint; it stays with its job.")
    db.delete(model)
    db.flush()


def tunable(db: Session, project_id: str, name: str) -> Model:
    """Returns the model that a new job starts from: a base model, or one tuned here. Raises `BadRequest`."""
    model = find(db, project_id, name)
    if model is not None:
        return model
    message = f"The model '{name}' is not available for fine-tuning or does not exist."
    raise BadRequest(f"{message} {there_are(db, project_id)}", param="model", code="model_not_available")


def names(db: Session, project_id: str) -> list[str]:
    """Returns every name by which the project can name a model: base models, aliases, then its own."""
    models = list_models(db, project_id)
    base = [model.name for model in models if model.project_id is None]
    aliases = [alias.name for alias in list_aliases(db)]
    own = [model.name for model in models if model.project_id is not None]
    return list(dict.fromkeys([*base, *aliases, *own]))


def there_are(db: Session, project_id: str) -> str:
    """Returns what to say to whoever named a model that is not there: what is, and how to rename it."""
    known = names(db, project_id)
    if not known:
        return "There are no models: `cherry models add` registers one."
    return f"There are: {listed(known)}. {BY_ALIAS}"


def listed(known: Sequence[str]) -> str:
    """Returns names as a sentence holds them, the first `MAX_TOLD`."""
    more = f" and {len(known) - MAX_TOLD} more" if len(known) > MAX_TOLD else ""
    return ", ".join(known[:MAX_TOLD]) + more


def list_aliases(db: Session) -> list[ModelAlias]:
    return list(db.scalars(select(ModelAlias).order_by(ModelAlias.name)))


def add_alias(db: Session, name: str, model: str) -> None:
    """Lets a name stand for a base model, for every project; a known alias moves to the new model.

    Raises `AliasInvalid`.
    """
    if not BASE_NAME.fullmatch(name):
        raise AliasInvalid(
            f"'{name[:100]}' cannot name a model: letters, digits, '.', '_' and '-' only, at most 96."
        )
    shared = select(Model.name).where(Model.project_id.is_(None))
    if db.scalars(shared.where(Model.name == name)).first() is not None:
        raise AliasInvalid(f"'{name}' is a model itself.")
    if db.scalars(shared.where(Model.name == model)).first() is None:
        raise AliasInvalid(f"there is no base model '{model}': `cherry models list` shows them.")
    alias = db.get(ModelAlias, name) or ModelAlias(name=name)
    alias.model = model
    db.add(alias)
    db.flush()


def remove_alias(db: Session, name: str) -> None:
    """Forgets an alias. Raises `AliasInvalid` if there is none of that name."""
    alias = db.get(ModelAlias, name)
    if alias is None:
        raise AliasInvalid(f"there is no alias '{name}': `cherry models alias list` shows them.")
    db.delete(alias)
    db.flush()


def check_base_name(name: str) -> None:
    """Raises `BaseModelInvalid` for what cannot name a base model."""
    if not BASE_NAME.fullmatch(name):
        raise BaseModelInvalid(
            f"'{name[:100]}' cannot name a model: letters, digits, '.', '_' and '-' only, at most 96."
        )


def is_alias(db: Session, name: str) -> bool:
    """Says whether a name stands for a base model."""
    return db.get(ModelAlias, name) is not None


def check_no_alias(db: Session, name: str) -> None:
    """Raises `BaseModelInvalid` for a name that stands for a base model already."""
    alias = db.get(ModelAlias, name)
    if alias is not None:
        raise BaseModelInvalid(
            f"'{name}' is an alias of '{alias.model}': remove it first (`cherry models alias remove {name}`),"
            " or give another name."
        )


def add_base_model(
    db: Session,
    name: str,
    folder: Path,
    cannot_show: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Model:
    """Registers a folder as a base model for every project; a known name moves to the new folder.

    Raises `BaseModelInvalid` for a name that is an alias, or with what is wrong with the folder's files. What
    takes a child process to find out `folders.try_model_folder` tells, before a transaction is open;
    `cannot_show` is of it. `methods` are those that jobs may use with it, `origin` says where it came from;
    see `Model`.
    """
    check_base_name(name)
    check_model_folder(folder)
    shared = select(Model).where(Model.name == name, Model.project_id.is_(None))
    model = db.scalars(shared.with_for_update()).first()
    if model is None:
        check_no_alias(db, name)
        model = Model(id=random_id("model_"), name=name)
        db.add(model)
    model.folder = str(folder.absolute())
    model.cannot_show = None if cannot_show is None else list(cannot_show)
    model.methods = None if methods is None else list(methods)
    model.origin = None if origin is None else dict(origin)
    db.flush()
    return model


def add_built_in(db: Session, name: str, folder: Path, cannot_show: Sequence[str]) -> None:
    """Registers a model that ships with Cherry, unless an operator has put another one or an alias there."""
    shared = select(Model).where(Model.name == name, Model.project_id.is_(None))
    found = db.scalars(shared).first()
    is_free = found is None and not is_alias(db, name)
    if is_free or (found and found.origin is None):
        add_base_model(db, name, folder, cannot_show)


def find(db: Session, project_id: str, name: str) -> Model | None:
    """Returns what the project means by a name: a model, a kept checkpoint, or what an alias stands for."""
    model = db.scalars(_visible(project_id).where(Model.name == name)).first()
    if model is not None:
        return model
    may_use = or_(Job.project_id == project_id, _is_shared(project_id))
    row = db.execute(_checkpoints().where(Checkpoint.model_name == name, may_use)).first()
    if row is not None:
        return _as_model(*row)
    alias = db.get(ModelAlias, name)
    if alias is None:
        return None
    return db.scalars(_visible(project_id).where(Model.name == alias.model)).first()


def origin(db: Session, project_id: str, model: Model | None) -> Model | None:
    """Returns the base model that a tuned one was tuned from in the first place, through any number of jobs.

    It is None for a base model, and where one on the way is gone.
    """
    if model is None or model.base is None:
        return None
    while model is not None and model.base is not None:
        model = find(db, project_id, model.base)
    return model


def check_method(db: Session, project_id: str, model: Model, method: str) -> None:
    """Raises `BadRequest` for a method that the operator does not allow with a model's base."""
    base = model if model.base is None else origin(db, project_id, model)
    if base is None or base.methods is None or method in base.methods:
        return
    of = "" if base is model else f", which was tuned from '{base.name}',"
    allowed = " and ".join(f"'{name}'" for name in base.methods)
    raise BadRequest(
        f"The model '{model.name}'{of} is not available for the method '{method}' here: the operator allows"
        f" {allowed}.",
        param="method.type",
        code="method_not_available",
    )


def check_calls(db: Session, project_id: str, model: Model, param: str) -> None:
    """Raises `BadRequest` about `param` for a model whose chat template is known not to show calls of tools.

    Of others a validation finds it out.
    """
    base = model if model.base is None else origin(db, project_id, model)
    if base is None or not {TOOL_CALLS, RESULTS} & set(base.cannot_show or ()):
        return
    message = (
        f"The chat template of the model '{model.name}' does not show tool calls or their results, so it"
        " cannot call tools. Use a model whose template does, or leave the tools out."
    )
    raise BadRequest(message, param=param, code="invalid_value")


def _visible(project_id: str) -> Select[Model]:
    is_same = (Checkpoint.job_id == Model.job_id, Checkpoint.storage_key == Model.storage_key)
    shared = exists().where(*is_same, _is_shared(project_id))
    return select(Model).where(or_(Model.project_id.is_(None), Model.project_id == project_id, shared))


def _checkpoints() -> Select[Checkpoint, Job]:
    """Selects the checkpoints that are kept, with their jobs."""
    kept = select(Checkpoint, Job).join(Job, Job.id == Checkpoint.job_id)
    return kept.where(Checkpoint.storage_key.is_not(None))


def _is_shared(project_id: str) -> ColumnElement[bool]:
    """Tells whether the owner of a checkpoint lets this project use it."""
    granted = (
        CheckpointPermission.checkpoint_id == Checkpoint.id,
        CheckpointPermission.project_id == project_id,
    )
    return exists().where(*granted)


def _as_model(checkpoint: Checkpoint, job: Job) -> Model:
    """Returns what a checkpoint is as a model. It is not a row."""
    return Model(
        name=checkpoint.model_name,
        project_id=job.project_id,
        base=job.model,
        storage_key=checkpoint.storage_key,
        job_id=job.id,
        created_at=checkpoint.created_at,
    )
