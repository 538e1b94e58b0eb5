"""Finds the rows that a job's completions answer: which file they lie in, and what stands in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy.orm import Session

from app.files import rows
from app.files.models import File
from app.files.rows import StoredRow, count_up_to, read_rows
from app.jobs.models import Job
from app.rollouts.service import Split
from app.storage import STORAGE_FAULTS, get_storage
from methods.auto import LEAST_UNSEEN

OF_TRAINING = ("train", "fresh", "control")
"""Splits whose rows are always those of the training file."""


class DataFile(NamedTuple):
    """A file of a job, which may be deleted by now: then its `key` is None."""

    file_id: str
    filename: str
    key: str | None


class DataFiles(NamedTuple):
    """The files of a job. `validation` is None where its validation rows are of the training file."""

    training: DataFile
    validation: DataFile | None


class Rows(NamedTuple):
    """Rows by their 0-based numbers in a file.

    Attributes:
        file: the file that they are of.
        found: those that could be read.
        fault: why there are none, as a sentence; empty where nothing is wrong.
    """

    file: DataFile
    found: Mapping[int, StoredRow]
    fault: str = ""


def files_of(db: Session, job: Job) -> DataFiles:
    """Returns a job's data files, deleted or not."""
    validation = _file(db, job, job.validation_file) if job.validation_file else None
    return DataFiles(_file(db, job, job.training_file), validation)


def rows_of(files: DataFiles, split: Split, numbers: Collection[int]) -> Rows:
    """Returns rows that completions of a split answer. It reads files: call it outside of transactions."""
    try:
        file = _file_of(files, split)
        if file.key is None:
            return Rows(file, {}, f"The file {file.file_id} was deleted, and its rows with it.")
        return Rows(file, read_rows(get_storage(), file.key, numbers))
    except FileNotFoundError:
        return Rows(files.training, {}, "The file was deleted, and its rows with it.")
    except STORAGE_FAULTS:
        return Rows(files.training, {}, "The storage that holds the file cannot be read at the moment.")


def row_on(files: DataFiles, split: Split, line: int) -> int | None:
    """Returns the 0-based row on a 1-based line of the file that a split counts; None where none is.

    Of a file that is gone the lines are taken for its rows. It reads files: call it outside of transactions.
    """
    try:
        key = _file_of(files, split).key
        return line - 1 if key is None else rows.row_on(get_storage(), key, line)
    except STORAGE_FAULTS:
        return line - 1


def _file_of(files: DataFiles, split: Split) -> DataFile:
    """Returns the file whose rows a split counts. Greedy answers are to training rows where there are too few
    others to judge a checkpoint by."""
    if files.validation is None or split in OF_TRAINING:
        return files.training
    if split == "greedy" and files.validation.key is not None:
        n_valid = count_up_to(get_storage(), files.validation.key, LEAST_UNSEEN)
        return files.validation if n_valid >= LEAST_UNSEEN else files.training
    return files.validation


def _file(db: Session, job: Job, file_id: str) -> DataFile:
    file = db.get(File, file_id)
    if file is None or file.project_id != job.project_id:
        return DataFile(file_id, "", None)
    return DataFile(file_id, file.filename, file.storage_key)
