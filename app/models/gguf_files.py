"""GGUF files that are to become base models: each gets a model folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from app.inspection import COMMAND, ChildLimits, InspectionError, inspect
from app.models.bases import HASH_SHOWN, MADE, remove_made
from app.models.folders import BaseModelInvalid

SUFFIX = ".gguf"
LIMITS = ChildLimits(seconds=3600.0, memory_bytes=2**40)
"""What making a folder may take; weights are held twice, once as fp32. Chosen, not measured."""
BLOCK = 2**20


def is_gguf(path: Path) -> bool:
    """Says whether a path names a GGUF file."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def hash_of(file: Path) -> str:
    """Returns the sha256 of a file."""
    digest = sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def folder_of(
    data_dir: Path, name: str, file: Path, digest: str, command: Sequence[str] = COMMAND
) -> Iterator[Path]:
    """Yields the model folder of a GGUF file, made whole or not at all. One made here goes with an error.

    It loads torch in a child process. Raises `BaseModelInvalid` with what cannot be read.
    """
    place = (data_dir / MADE / f"{name}-{digest[:HASH_SHOWN]}").absolute()
    is_new = not place.exists()
    if is_new:
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _make(file, partial, command)
            partial.replace(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    try:
        yield place
    except BaseException:
        if is_new:
            remove_made(data_dir, str(place))
        raise


def _make(file: Path, place: Path, command: Sequence[str]) -> None:
    try:
        found = inspect("gguf", limits=LIMITS, command=command, file=str(file), place=str(place))
    except InspectionError as problem:
        raise BaseModelInvalid(f"{file} cannot be used: {problem}") from None
    if found["fault"] is not None:
        raise BaseModelInvalid(f"{file} cannot be used: {found['fault'].rstrip('.')}.")
