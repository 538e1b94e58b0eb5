"""Opens what is stored, and checks by its sha256 that it is what was written.

Disks lose bits and people edit files; unchecked, such a file would train or be delivered all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.storage import CHUNK, MANIFEST, Storage


class StoredFileDamaged(Exception):
    """Names a stored file that is not what was written."""


def open_file(storage: Storage, key: str, sha256: str, copy: Path) -> Path:
    """Returns a stored file on this machine's disk: itself, or out of remote storage as `copy`.

    Raises `StoredFileDamaged`, or `FileNotFoundError` for a missing key.
    """
    if path := storage.local_path(key):
        _compare(key, _digest(storage.open_stream(key)), sha256)
        return path
    digest = hashlib.sha256()
    with copy.open("wb") as out:
        for chunk in storage.open_stream(key):
            digest.update(chunk)
            out.write(chunk)
    _compare(key, digest.hexdigest(), sha256)
    return copy


def check_folder(storage: Storage, prefix: str, manifest: Mapping[str, Any] | None = None) -> None:
    """Checks every file of a stored folder against a manifest: the given one, else the folder's own.

    Raises `StoredFileDamaged`, which names the first file that is missing or has changed, or
    `FileNotFoundError` if the folder has no manifest.
    """
    manifest = read_manifest(storage, prefix) if manifest is None else manifest
    for name, facts in sorted(manifest["files"].items()):
        try:
            found = _digest(storage.open_stream(f"{prefix}/{name}"))
        except FileNotFoundError:
            raise StoredFileDamaged(f"{name} is missing") from None
        _compare(name, found, facts["sha256"])


def check_copy(folder: Path, within: str, manifest: Mapping[str, Any]) -> None:
    """Checks the files of a folder on this machine that a manifest names below `within`/, as far as they are
    there.

    Raises `StoredFileDamaged`.
    """
    for name, facts in sorted(manifest["files"].items()):
        path = folder / name.removeprefix(f"{within}/")
        if name.startswith(f"{within}/") and path.is_file():
            _compare(name, _digest(_chunks(path)), facts["sha256"])


def read_manifest(storage: Storage, prefix: str) -> dict[str, Any]:
    """Returns the manifest of a stored folder. Raises `StoredFileDamaged` or `FileNotFoundError`."""
    try:
        manifest = json.loads(storage.read_bytes(f"{prefix}/{MANIFEST}"))
        {facts["sha256"] for facts in manifest["files"].values()}  # raises where it is none
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoredFileDamaged(f"{MANIFEST} has changed since it was written") from None
    found: dict[str, Any] = manifest
    return found


def _compare(name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise StoredFileDamaged(f"{name} has changed since it was written: its sha256 is another")


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
