"""Models as folders on this machine. What remote storage holds is copied for as long as it is needed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from app.files.integrity import StoredFileDamaged, check_copy, check_folder, read_manifest
from app.storage import get_storage

log = logging.getLogger(__name__)

CONFIG = "config.json"
MODEL = "model"
"""The folder of a checkpoint that holds its complete model."""
ADAPTER = "adapter"
"""The folder of a checkpoint that holds its LoRA adapter, if it has one."""
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
    remove; of a model that was tuned here every file is checked, also those that are not fetched.

    Raises `FileNotFoundError`, or `StoredFileDamaged` naming the file.
    """
    folder = Path(model.folder) if model.folder is not None else _tuned(model, copy, weights)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"The model {model.name} is not there on the worker's machine.")
    return folder


def local_adapter(model: Placed, copy: Path) -> Path | None:
    """Where the LoRA adapter of a model that was tuned here lies, checked; None if it has none.

    Raises `FileNotFoundError` or `StoredFileDamaged` as `local_folder` does.
    """
    storage, key = get_storage(), str(model.storage_key)
    try:
        manifest = read_manifest(storage, key)
        files = {n: facts for n, facts in manifest["files"].items() if n.startswith(f"{ADAPTER}/")}
        if not files:
            return None
        check_folder(storage, key, {"files": files})
        if local := storage.local_path(f"{key}/{min(files)}"):
            return local.parent
        storage.fetch_folder(f"{key}/{ADAPTER}", copy)
        check_copy(copy, ADAPTER, manifest)
    except StoredFileDamaged as damage:
        raise StoredFileDamaged(f"The model {model.name} cannot be used: {damage}.") from None
    return copy


def folder_if_there(model: Placed | None, copy: Path) -> str | None:
    """Where the files lie of a model that a run can do without; None if they are gone or damaged."""
    if model is None:
        return None
    try:
        return str(local_folder(model, copy))
    except (FileNotFoundError, StoredFileDamaged) as problem:
        log.warning("model_done_without", extra={"model": model.name, "problem": str(problem)})
        return None


def _tuned(model: Placed, copy: Path, weights: bool) -> Path:
    """Of a checkpoint: its complete model."""
    storage, prefix = get_storage(), f"{model.storage_key}/{MODEL}"
    try:
        manifest = read_manifest(storage, str(model.storage_key))
        if local := storage.local_path(f"{prefix}/{CONFIG}"):
            check_folder(storage, str(model.storage_key), manifest)
            return local.parent
        if not weights:
            check_folder(storage, str(model.storage_key), manifest)
        storage.fetch_folder(prefix, copy, without=None if weights else WEIGHTS)
        check_copy(copy, MODEL, manifest)
    except StoredFileDamaged as damage:
        raise StoredFileDamaged(f"The model {model.name} cannot be used: {damage}.") from None
    return copy
