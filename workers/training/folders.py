"""Folders that are either complete or not there: they are written aside, manifest last, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
PARTIAL = ".partial"
STATES_KEPT = 2
"""The last training state, and one to fall back to should it be damaged. Chosen, not measured."""

_CHUNK_BYTES = 1 << 20


class FolderDamaged(Exception):
    """Says that a published folder is not what its manifest says."""


def publish(folder: Path, write: Callable[[Path], None], facts: Mapping[str, Any]) -> None:
    """Lets `write` fill a folder, then makes it appear under its name at once, replacing an older one.

    The manifest holds `facts` and, under "files", bytes and sha256 of each file.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    files = {}
    for file in sorted(path for path in partial.rglob("*") if path.is_file()):
        _sync(file)
        files[file.relative_to(partial).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    manifest = partial / MANIFEST
    manifest.write_text(json.dumps({**facts, "files": files}, indent=1, allow_nan=False) + "\n")
    _sync(manifest)
    for inner in [partial, *(path for path in partial.rglob("*") if path.is_dir())]:
        _sync(inner)
    if folder.exists():  # left by a run that was killed before it could note it
        shutil.rmtree(folder)
    partial.rename(folder)
    _sync(folder.parent)


def read_manifest(folder: Path, *, verify: bool = True) -> dict[str, Any]:
    """Returns the manifest of a published folder. Raises `FolderDamaged` if a file is missing or changed."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        for name, facts in manifest["files"].items() if verify else ():
            file = folder / name
            if file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]:
                raise FolderDamaged(f"{folder.name}/{name} has changed since it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FolderDamaged(f"{folder.name} is not complete: {error}") from error
    return manifest


def sha256(file: Path) -> str:
    """Returns the hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
