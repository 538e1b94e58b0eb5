"""Models: base models that everybody may tune, and the tuned ones of a project."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app.errors import BadRequest, Forbidden, NotFound
from app.ids import random_id
from app.models.models import Model

BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz")
"""Weight files that run code when they are loaded."""


class BaseModelInvalid(Exception):
    """A folder cannot serve as a base model; the text says why and what to do."""


def list_models(db: Session, project_id: str) -> list[Model]:
    """What the project can name: base models, then its own, each oldest first."""
    query = _visible(project_id).order_by(Model.project_id.is_not(None), Model.created_at, Model.id)
    return list(db.scalars(query))


def get(db: Session, project_id: str, name: str) -> Model:
    """A model by name. Raises `NotFound`."""
    model = db.scalars(_visible(project_id).where(Model.name == name)).first()
    if model is None:
        message = f"The model '{name}' does not exist or you do not have access to it."
        raise NotFound(message, param="model", code="model_not_found")
    return model


def remove(db: Session, project_id: str, name: str) -> None:
    """Delete a tuned model's name; its job keeps the checkpoint. Raises `NotFound`, `Forbidden`."""
    model = get(db, project_id, name)
    if model.project_id is None:
        raise Forbidden(f"The model '{name}' is a base model; only fine-tuned models can be deleted.")
    db.delete(model)
    db.flush()


def tunable(db: Session, project_id: str, name: str) -> Model:
    """The base model of a new job. Raises `BadRequest`."""
    model = db.scalars(_visible(project_id).where(Model.name == name)).first()
    if model is not None and model.folder is not None:
        return model
    if model is not None:
        message = f"The model '{name}' is fine-tuned already. This version of Cherry tunes base models only."
    else:
        message = f"The model '{name}' is not available for fine-tuning or does not exist."
    raise BadRequest(message, param="model", code="model_not_available")


def add_base_model(db: Session, name: str, folder: Path) -> Model:
    """Register a folder as a base model for every project; a known name moves to the new folder.

    Raises `BaseModelInvalid` unless it holds a config, safetensors weights (and no pickled ones), a
    tokenizer and a chat template.
    """
    if not BASE_NAME.fullmatch(name):
        raise BaseModelInvalid(
            f"'{name[:100]}' cannot name a model: letters, digits, '.', '_' and '-' only, at most 96."
        )
    check_model_folder(folder)
    shared = select(Model).where(Model.name == name, Model.project_id.is_(None))
    model = db.scalars(shared.with_for_update()).first()
    if model is None:
        model = Model(id=random_id("model_"), name=name)
        db.add(model)
    model.folder = str(folder.absolute())
    db.flush()
    return model


def check_model_folder(folder: Path) -> None:
    """Raises `BaseModelInvalid` with everything that is wrong with a model folder."""
    if not folder.is_dir():
        raise BaseModelInvalid(f"{folder} is not a folder.")
    names = {path.name for path in folder.iterdir() if path.is_file()}
    wrong = []
    if "config.json" not in names:
        wrong.append("config.json is missing")
    if not any(name.endswith(".safetensors") for name in names):
        wrong.append("there are no *.safetensors weights")
    if pickled := sorted(name for name in names if name.endswith(PICKLED)):
        wrong.append(f"it holds pickled files, which can run code ({', '.join(pickled[:3])}): remove them")
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        wrong.append("the tokenizer is missing (tokenizer.json)")
    elif not _has_chat_template(folder, names):
        wrong.append("the tokenizer has no chat template (chat_template.jinja or tokenizer_config.json)")
    if wrong:
        raise BaseModelInvalid(f"{folder} cannot be used: {'; '.join(wrong)}.")


def _has_chat_template(folder: Path, names: set[str]) -> bool:
    if names & {"chat_template.jinja", "chat_template.json"}:
        return True
    if "tokenizer_config.json" not in names:
        return False
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("chat_template"))
    except (ValueError, AttributeError):
        return False


def _visible(project_id: str) -> Select[Model]:
    return select(Model).where(or_(Model.project_id.is_(None), Model.project_id == project_id))
