"""Reads the rows of a run's data: out of its request, a file, or what the project has stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.evals.models import Eval, EvalRun
from app.files.integrity import StoredFileDamaged, open_file
from app.files.models import File
from app.storage import get_storage
from methods.faults import MAX_REASONS, Fault, told
from methods.rows import Row, check_object, scan_rows
from workers.evals import logs
from workers.evals.faults import RunInvalid
from workers.jobs.job_data import operators_limits

WRAPPED = {"item", "sample"}


class SourceRow(NamedTuple):
    """One row of data.

    Attributes:
        place: 0-based; several answers to one row share it.
        item: what graders read.
        given: what was answered to it, as a `sample`; None where nothing is known of that.
    """

    place: int
    item: dict[str, Any]
    given: dict[str, Any] | None


class DataFile(NamedTuple):
    """A file of rows on this machine, and its id and name as messages tell them."""

    path: Path
    shown: str


def find_file(run: EvalRun, scratch: Path) -> DataFile | None:
    """Returns the file that a run reads, if it reads one. Raises `RunInvalid`.

    `scratch` is for a copy of a remote file.
    """
    source = run.data_source["source"]
    if source["type"] != "file_id":
        return None
    with unit_of_work() as db:
        mine = (File.id == source["id"], File.project_id == run.project_id)
        file = db.scalars(select(File).where(*mine)).first()
    if file is None:
        raise RunInvalid("invalid_file", f"The file {source['id']} was deleted before it could be read.")
    try:
        copy = scratch / Path(file.storage_key).name
        return DataFile(open_file(get_storage(), file.storage_key, file.sha256, copy), file.shown)
    except FileNotFoundError:
        raise RunInvalid("invalid_file", f"The file {file.shown} is not in storage any more.") from None
    except StoredFileDamaged:
        message = f"The file {file.shown} has changed in storage since it was uploaded. Upload it again."
        raise RunInvalid("invalid_file", message) from None


def rows_of(db: Session, run: EvalRun, of: Eval, file: DataFile | None) -> Iterator[SourceRow]:
    """Yields the rows of a run's data. Raises `RunInvalid`."""
    if file is not None:
        yield from _scanned(file)
        return
    source = run.data_source["source"]
    match source["type"]:
        case "file_content":
            for place, row in enumerate(source["content"]):
                yield SourceRow(place, row["item"], row.get("sample"))
        case "stored_completions":
            for place, (item, given) in logs.completions(db, run.project_id, source, _metadata(of, source)):
                yield SourceRow(place, item, given)
        case _:
            for place, (item, given) in logs.responses(db, run.project_id, source, _metadata(of, source)):
                yield SourceRow(place, item, given)


def _metadata(of: Eval, source: Mapping[str, Any]) -> dict[str, str]:
    """Returns the pairs that logs must carry: the eval's and the run's."""
    return {**(of.data_source_config.get("metadata") or {}), **(source.get("metadata") or {})}


def _scanned(file: DataFile) -> Iterator[SourceRow]:
    """Yields rows. At the end it raises `RunInvalid` if there were lines that are none."""
    faults: list[Fault] = []
    place = 0
    with file.path.open("rb") as opened:
        for found in scan_rows(opened, check=check_object, **operators_limits()):
            if isinstance(found, Row):
                yield _unwrapped(place, dict(found.item))
                place += 1
                continue
            faults.append(found)
            if len({fault.reason for fault in faults}) == MAX_REASONS:
                break
    if faults:
        lines = "\n".join(told(faults, place + len(faults)))
        raise RunInvalid("invalid_file", f"The file {file.shown} is invalid.\n{lines}")
    if place == 0:
        raise RunInvalid("invalid_file", f"The file {file.shown} has no rows.")


def _unwrapped(place: int, row: dict[str, Any]) -> SourceRow:
    """Returns a row in OpenAI's form, `item` and perhaps `sample`; any other is an item as it stands."""
    item, sample = row.get("item"), row.get("sample")
    if row.keys() <= WRAPPED and isinstance(item, dict) and isinstance(sample, dict | None):
        return SourceRow(place, item, sample)
    return SourceRow(place, row, None)
