"""A job's data files: where they lie, and their rows. What is wrong with them becomes the job's error."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy.orm import Session

from app.files.models import File
from app.settings import get_settings
from app.storage import Storage, get_storage
from methods.rows import Check, DatasetInvalid, Row, read_rows

TRAINING, VALIDATION = "training_file", "validation_file"


class ModelShape(NamedTuple):
    """What a model's config.json says of its size."""

    hidden_size: int
    context: int


class JobInvalid(Exception):
    """A job cannot run as it was asked for."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class DataFile(NamedTuple):
    """One of a job's files."""

    param: str
    shown: str
    """Its id and its name, as messages tell them."""
    storage_key: str | None
    """None if the file was deleted."""

    def invalid(self, reason: str) -> JobInvalid:
        name = self.param.replace("_", " ")
        return JobInvalid(f"invalid_{self.param}", f"The {name} {self.shown} {reason}", self.param)


def find_file(db: Session, param: str, file_id: str) -> DataFile:
    """A file that a job names, deleted or not."""
    file = db.get(File, file_id)
    return DataFile(param, file_id, None) if file is None else DataFile(param, file.shown, file.storage_key)


def fetch_rows(
    storage: Storage, key: str, scratch: Path, *, check: Check | None = None, **limits: int
) -> list[Row]:
    """Read rows out of storage. Raises `DatasetInvalid`, or `FileNotFoundError` for a missing key."""
    if local := storage.local_path(key):
        return read_rows(local, check=check, **limits)
    copy = scratch / Path(key).name
    with copy.open("wb") as out:
        out.writelines(storage.open_stream(key))
    return read_rows(copy, check=check, **limits)


def rows_of(data_file: DataFile, check: Check, **limits: int) -> list[Row]:
    """All rows of a file, within the operator's limits. Raises `JobInvalid`."""
    settings = get_settings()
    limits |= {"max_line_bytes": settings.max_line_bytes, "max_file_bytes": settings.max_file_bytes}
    if data_file.storage_key is None:
        raise data_file.invalid("was deleted before it could be read.")
    with TemporaryDirectory(prefix="cherry-validate-") as scratch:
        try:
            return fetch_rows(get_storage(), data_file.storage_key, Path(scratch), check=check, **limits)
        except FileNotFoundError:
            raise data_file.invalid("was deleted before it could be read.") from None
        except DatasetInvalid as fault:
            raise data_file.invalid(f"is invalid.\n{fault}") from None
