"""A job's data files: where they lie, and their rows. What is wrong with them becomes the job's error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy.orm import Session

from app.files.integrity import StoredFileDamaged, open_file
from app.files.models import File
from app.settings import get_settings
from app.storage import get_storage
from methods.canary_rows import MOST_TEXTS, check_canary_row
from methods.rows import Check, DatasetInvalid, Row, read_rows

TRAINING, VALIDATION, CANARY = "training_file", "validation_file", "canary_file"
SCRATCH = "cherry-validate-"
"""Temporary folders of validations begin so."""


class ModelShape(NamedTuple):
    """What a model's config.json says of its size."""

    hidden_size: int
    context: int


class Asked(Protocol):
    """What somebody asked to be trained: the row of a job or of a preflight."""

    @property
    def project_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def training_file(self) -> str: ...
    @property
    def validation_file(self) -> str | None: ...
    @property
    def canary_file(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def method(self) -> dict[str, Any]: ...
    @property
    def resources(self) -> dict[str, Any] | None: ...


class JobInvalid(Exception):
    """A job cannot run as it was asked for."""

    def __init__(self, code: str, message: str, param: str | None, lines: Sequence[int] = ()) -> None:
        """`lines` are those of the file that are at fault."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.lines = tuple(lines)


class DataFile(NamedTuple):
    """One of a job's files."""

    param: str
    shown: str
    """Its id and its name, as messages tell them."""
    storage_key: str | None
    """None if the file was deleted."""
    sha256: str = ""

    def invalid(self, reason: str, lines: Sequence[int] = ()) -> JobInvalid:
        name = self.param.replace("_", " ")
        return JobInvalid(f"invalid_{self.param}", f"The {name} {self.shown} {reason}", self.param, lines)


def find_file(db: Session, param: str, file_id: str) -> DataFile:
    """A file that a job names, deleted or not."""
    file = db.get(File, file_id)
    if file is None:
        return DataFile(param, file_id, None)
    return DataFile(param, file.shown, file.storage_key, file.sha256)


def rows_of(data_file: DataFile, check: Check, scratch: Path, **limits: int) -> list[Row]:
    """All rows of a file, for validation and training alike. `scratch` is for a copy of a remote file.

    Raises `JobInvalid` for a file that is gone, has changed since it was uploaded, or holds faults.
    """
    try:
        if data_file.storage_key is None:
            raise FileNotFoundError(data_file.shown)
        copy = scratch / Path(data_file.storage_key).name
        path = open_file(get_storage(), data_file.storage_key, data_file.sha256, copy)
        return read_rows(path, check=check, **limits)
    except FileNotFoundError:
        raise data_file.invalid("was deleted before it could be read.") from None
    except StoredFileDamaged:
        raise data_file.invalid(
            "has changed in storage since it was uploaded: its sha256 is another. Upload it again."
        ) from None
    except DatasetInvalid as fault:
        lines = [each.line for each in fault.faults if each.line]
        raise data_file.invalid(f"is invalid.\n{fault}", lines) from None


def canary_rows(data_file: DataFile | None, scratch: Path, **limits: int) -> list[Row] | None:
    """The texts of a canary file, as `rows_of` reads them; None where a job has none of its own."""
    if data_file is None:
        return None
    return rows_of(data_file, check_canary_row, scratch, max_rows=MOST_TEXTS, **limits)


def operators_limits() -> dict[str, int]:
    """What the operator lets a new job's files have."""
    settings = get_settings()
    return {"max_line_bytes": settings.max_line_bytes, "max_file_bytes": settings.max_file_bytes}
