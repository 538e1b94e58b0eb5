"""Makes a data set: all that its child process does, and the outcome that it writes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.datasets.models import Dataset, DatasetSource
from app.datasets.runs import LEASES
from app.db import limit_statements, unit_of_work
from app.disk import scratch_folder
from app.errors import ApiError
from app.files import service as files
from app.jobs.leases import Claim, LeaseLost
from app.logs import configure_logging
from app.models.models import Model
from app.settings import get_settings
from app.storable import storable
from app.storage import get_storage
from methods.faults import lines_in_words
from methods.rows import Row
from methods.tuning_rows import row_check, too_few
from workers.datasets.choosing import Chosen, conflicting, copies
from workers.datasets.redaction import RedactionFailed, redacted
from workers.datasets.rows import Candidate, candidates
from workers.datasets.stored import Kept, count, fits_rewards, read_page, still_there
from workers.jobs.faults import Exit
from workers.jobs.job_data import SCRATCH, VALIDATION, JobInvalid, find_file, operators_limits, rows_of

log = structlog.get_logger(__name__)


class DatasetImpossible(Exception):
    """There can be no data set as it was asked for."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def make_claimed(row_id: str, attempt: int, project_id: str) -> int:
    """Makes a claimed data set and writes its outcome. Returns the exit code of its process.

    Raises `MemoryError` at the limit of its memory.
    """
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(dataset_id=row_id, attempt=attempt)
    claim = Claim(row_id, attempt, project_id)
    try:
        _carry_out(claim)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("dataset_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _carry_out(claim: Claim) -> None:
    with unit_of_work() as db:
        dataset = LEASES.held(db, claim)
    with scratch_folder(SCRATCH) as scratch:
        try:
            _Work(claim, dataset, scratch).make()
        except DatasetImpossible as fault:
            _fail(claim, fault.code, str(fault), fault.param)
        except RedactionFailed as fault:
            _fail(claim, fault.code, str(fault), "redact")
        except JobInvalid as fault:
            _fail(claim, fault.code, fault.message, fault.param)
        except ApiError as fault:  # such as a project that may store no more
            _fail(claim, fault.code or "invalid_request_error", fault.message, fault.param)


def _fail(claim: Claim, code: str, message: str, param: str | None) -> None:
    log.info("dataset_failed", code=code)
    with unit_of_work() as db:
        LEASES.finish_failed(db, claim, code, message, param)


class _Work:
    """One data set on its way."""

    def __init__(self, claim: Claim, dataset: Dataset, scratch: Path) -> None:
        self._claim = claim
        self._dataset = dataset
        self._request = dataset.request
        self._format: str = dataset.request["format"]
        self._scratch = scratch
        self._chosen = Chosen()

    def make(self) -> None:
        """Writes the file and its row, and where its rows came from."""
        validation = self._validation_rows()
        kept = self._read()
        self._chosen.take(candidates(self._format, kept, self._request))
        self._chosen.keep_valid(self._format)
        self._drop_leaks(validation)  # as they were written, and below as they are after redaction
        redaction = self._redact()
        self._enter("comparing", 0, len(self._chosen.rows))
        self._chosen.sort_for_choice()
        conflicts = conflicting(self._chosen.rows, self._format)
        gone = copies(self._chosen.rows, self._format, self._request["dedupe"], validation)
        self._refuse_leaks(reason == "leak" for reason in gone.values())
        self._chosen.drop(gone)
        self._chosen.keep_newest(self._request["max_rows"])
        facts = {"conflicting_rows": conflicts, "redaction": redaction}
        while not self._store(kept, facts):  # some of it was erased meanwhile
            pass

    def _validation_rows(self) -> list[Row]:
        file_id = self._request["validation_file"]
        if file_id is None:
            return []
        self._enter("reading the validation file", 0, 0)
        with unit_of_work() as db:
            file = find_file(db, VALIDATION, file_id)
        return rows_of(file, row_check(self._format), self._scratch, **operators_limits())

    def _read(self) -> list[Kept]:
        """Returns the stored completions that fit the filter, oldest first."""
        with unit_of_work() as db:
            total = count(db, self._dataset)
        found: list[Kept] = []
        place = None
        while True:
            with unit_of_work() as db:
                page = read_page(db, self._dataset, place)
            if not page:
                break
            place = (page[-1].created_at, page[-1].id)
            found += [each for each in page if fits_rewards(each, self._request["filter"])]
            self._enter("reading", len(found), total)
        return found

    def _drop_leaks(self, validation: Sequence[Row]) -> None:
        """Leaves out what the validation file asks too."""
        if validation:
            self._enter("comparing with the validation file", 0, len(self._chosen.rows))
            leaks = copies(self._chosen.rows, self._format, "none", validation)
            self._refuse_leaks(True for _ in leaks)
            self._chosen.drop(leaks)

    def _refuse_leaks(self, found: Iterator[bool]) -> None:
        leaks = sum(found)
        if leaks and self._request["on_leak"] == "fail":
            told = f"{leaks:,} rows have a prompt of the validation file, exactly or nearly."
            raise DatasetImpossible("leak", told, VALIDATION)

    def _redact(self) -> dict[str, Any] | None:
        source = self._request["redact"]
        if source is None:
            return None
        rows = [each.row for each in self._chosen.rows]
        self._enter("redacting", 0, len(rows))
        changed = self._chosen.redact(
            redacted(source, rows, lambda n: self._enter("redacting", n, len(rows)))
        )
        before = self._chosen.left_out["invalid"]
        self._chosen.keep_valid(self._format)
        if self._chosen.left_out["invalid"] > before:
            told = (
                f"redact(row) returned what is no {self._format} row: {self._chosen.invalid[-1]['reason']}."
            )
            raise DatasetImpossible("redaction_failed", told, "redact")
        return {"sha256": hashlib.sha256(source.encode()).hexdigest(), "rows_changed": changed}

    def _report(self, kept: Sequence[Kept]) -> dict[str, Any]:
        rows = self._chosen.rows
        models = Counter(source.model for row in rows for source in row.sources[:1])
        said = {feedback for row in rows for source in row.sources for feedback in source.feedback_ids}
        return {
            "completions": len(kept),
            "rows": len(rows),
            "left_out": {name: n for name, n in sorted(self._chosen.left_out.items()) if n},
            "invalid": self._chosen.invalid,
            "models": self._models(models),
            "feedback": self._feedback(kept, said),
            "remarks": [fault] if (fault := too_few(self._format, len(rows))) else [],
        }

    def _models(self, counts: Mapping[str, int]) -> list[dict[str, Any]]:
        """Returns the models that wrote the rows' completions, with the jobs that they came from."""
        mine = (Model.name.in_(counts), Model.job_id.is_not(None))
        with unit_of_work() as db:
            jobs = dict(db.execute(select(Model.name, Model.job_id).where(*mine)).all())
        return [{"model": name, "job": jobs.get(name), "rows": n} for name, n in sorted(counts.items())]

    def _feedback(self, kept: Sequence[Kept], said: set[str]) -> dict[str, int]:
        """Counts by kind the feedback that decided about rows."""
        used = [each for completion in kept for each in completion.said if each.id in said]
        kinds = ("reward", "correction", "reference")
        return {kind: sum(getattr(each, kind) is not None for each in used) for kind in kinds}

    def _store(self, kept: Sequence[Kept], facts: Mapping[str, Any]) -> bool:
        """Stores the bytes, then in one transaction the file's row, the sources and the outcome.

        Returns False, and leaves those rows out, if completions have gone since they were read: an erasure
        that did not know of this data set must be sure that they are in none.
        """
        if not self._chosen.rows:
            raise DatasetImpossible("no_rows", f"No row is left: {_told(len(kept), self._chosen.left_out)}.")
        self._enter("writing", 0, len(self._chosen.rows))
        data = b"".join(_line(row) for row in self._chosen.rows)
        _check_limits(self._chosen.rows, data)
        with unit_of_work() as db:
            files.check_room(db, self._claim.project_id, len(data))
            file_id = files.reserve(db)
        stored = files.store_bytes(file_id, data)
        report = {**self._report(kept), **facts}
        try:
            with unit_of_work() as db:
                gone = self._gone(db)
                if not gone:
                    self._finish(db, stored, report)
        except BaseException:
            get_storage().delete(stored.key)
            raise
        if gone:
            get_storage().delete(stored.key)
            self._chosen.drop(dict.fromkeys(gone, "erased"))
            return False
        log.info("dataset_succeeded", rows=report["rows"])
        return True

    def _gone(self, db: Session) -> list[int]:
        """Returns the places of rows of which a completion has gone. The others are kept from going."""
        there = still_there(db, [source.completion_id for row in self._chosen.rows for source in row.sources])
        return [
            place
            for place, row in enumerate(self._chosen.rows)
            if not all(source.completion_id in there for source in row.sources)
        ]

    def _finish(self, db: Session, stored: files.Stored, report: Mapping[str, Any]) -> None:
        name = self._request["filename"] or f"{self._dataset.id}.jsonl"
        file = files.create(db, self._claim.project_id, stored, filename=name, purpose="fine-tune")
        told = storable({**report, "bytes": stored.size, "sha256": stored.sha256})
        LEASES.finish_succeeded(db, self._claim, file_id=file.id, report=told)
        db.execute(insert(DatasetSource), list(self._sources()))

    def _sources(self) -> Iterator[dict[str, Any]]:
        for line, row in enumerate(self._chosen.rows, 1):
            for source in row.sources:
                yield {"dataset_id": self._dataset.id, "line": line, **source._asdict()}

    def _enter(self, phase: str, done: int, total: int) -> None:
        with unit_of_work() as db:
            LEASES.enter(db, self._claim, phase, done, total)


def _line(candidate: Candidate) -> bytes:
    return json.dumps(candidate.row, ensure_ascii=False).encode() + b"\n"


def _check_limits(rows: Sequence[Candidate], data: bytes) -> None:
    """Raises `DatasetImpossible` for a file that no job would take."""
    limits = operators_limits()
    if len(data) > limits["max_file_bytes"]:
        told = f"The file would have {len(data):,} bytes; {limits['max_file_bytes']:,} are the most."
        raise DatasetImpossible("file_too_large", f"{told} Ask for fewer rows with 'max_rows'.", "max_rows")
    long = [line for line, row in enumerate(rows, 1) if len(_line(row)) > limits["max_line_bytes"]]
    if long:
        most = f"{limits['max_line_bytes']:,} bytes"
        raise DatasetImpossible("row_too_large", f"Rows are larger than {most}: {lines_in_words(long)}.")


def _told(n_kept: int, left_out: Mapping[str, int]) -> str:
    """Returns what became of the completions, for a message."""
    if not n_kept:
        return "no stored completion fits the filter"
    reasons = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in sorted(left_out.items()) if n)
    return f"of {n_kept:,} completions all were left out ({reasons})"
