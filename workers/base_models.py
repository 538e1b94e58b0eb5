"""The model that a job starts from, as a folder on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage

CONFIG = "config.json"


def local_folder(model: Model) -> Path:
    """Where a model's files lie. One that was tuned here is used in local storage, or fetched out of a
    remote one and kept, for the next job, below the working folder. Raises `FileNotFoundError`."""
    folder = Path(model.folder) if model.folder is not None else _tuned_folder(str(model.storage_key))
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"The model {model.name} is not there on the worker's machine.")
    return folder


def _tuned_folder(storage_key: str) -> Path:
    """Of a checkpoint: its complete model."""
    prefix, storage = f"{storage_key}/model", get_storage()
    if local := storage.local_path(f"{prefix}/{CONFIG}"):
        return local.parent
    folder = get_settings().data_dir / "models" / hashlib.sha256(prefix.encode()).hexdigest()[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    storage.fetch_folder(prefix, folder)
    return folder
