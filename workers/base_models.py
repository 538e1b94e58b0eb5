"""Models as folders on this machine. What remote storage holds is copied for as long as it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from app.storage import get_storage

CONFIG = "config.json"
WEIGHTS = ".safetensors"


class Placed(Protocol):
    """A model and where its files are: in a folder, or in storage if it was tuned here."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> str | None: ...
    @property
    def storage_key(self) -> str | None: ...


def local_folder(model: Placed, copy: Path, *, weights: bool = True) -> Path:
    """Where a model's files lie. Out of remote storage they are fetched to `copy`, which is the caller's to
    remove. Raises `FileNotFoundError`."""
    folder = Path(model.folder) if model.folder is not None else _tuned(str(model.storage_key), copy, weights)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"The model {model.name} is not there on the worker's machine.")
    return folder


def _tuned(storage_key: str, copy: Path, weights: bool) -> Path:
    """Of a checkpoint: its complete model."""
    prefix, storage = f"{storage_key}/model", get_storage()
    if local := storage.local_path(f"{prefix}/{CONFIG}"):
        return local.parent
    storage.fetch_folder(prefix, copy, without=None if weights else WEIGHTS)
    return copy
