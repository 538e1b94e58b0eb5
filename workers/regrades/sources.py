"""The completions that a regrade is about, with what graders see of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session

from app.chat.messages import chat_messages
from app.chat.models import StoredChat
from app.db import unit_of_work
from app.jobs.models import Job
from app.models import service as models
from app.regrades.models import Regrade
from app.regrades.service import rollouts_of
from app.rollouts.models import Rollout
from app.rollouts.samples import sample_of, written
from app.rollouts.service import cursor_of
from graders import Failure, FailureKind, Sample
from methods.auto import LEAST_UNSEEN
from methods.hold_out import hold_out
from methods.rows import Row
from methods.tuning_rows import row_check
from workers.jobs.job_data import TRAINING, VALIDATION, JobInvalid, find_file, rows_of

VALIDATION_SPLIT = "validation_split"
"""The hyperparameter by which rows of the training file are held out."""
LOST = (FailureKind.TOOL_SERVER.value, FailureKind.USER_SIMULATOR.value)
"""Failures of completions that broke off by nobody's fault who is graded."""
PAGE = 500
"""Completions that are read together. Chosen, not measured."""


class Stored(NamedTuple):
    """A completion that is to be graded.

    `reward` and `failure` are what it got once; `data_row` is what completions of one prompt share, and
    `group` what those share that were sampled for it at one time. `ungraded` is the failure of one that its
    job has asked no grader about: nobody asks another.
    """

    ref: str
    data_row: str
    group: str
    sample: Sample
    item: Mapping[str, Any]
    reward: float | None = None
    failure: str | None = None
    ungraded: Failure | None = None


class Source(Protocol):
    """Where completions come from."""

    def count(self, db: Session) -> int:
        """Returns how many there are."""

    def pages(self) -> Iterator[list[Stored]]:
        """Yields them in an order that stays. Raises `JobInvalid` for one that cannot be graded."""


def source_of(db: Session, regrade: Regrade, scratch: Path) -> Source:
    """Returns what a regrade is about. Raises `JobInvalid` if its data is gone."""
    if regrade.job_id is None:
        return StoredCompletions(db, regrade)
    job = db.get_one(Job, regrade.job_id)
    return Rollouts(job, regrade.source, _data_of(db, job, scratch))


class Data(NamedTuple):
    """The rows of a job's files.

    Attributes:
        train: those of the training file.
        valid: those of the file in which validation rows have their places: of the same one, if they are held
            out of it.
        n_valid: how many the job is validated by.
        is_held_out: whether both files are one.
    """

    train: list[Row]
    valid: list[Row]
    n_valid: int
    is_held_out: bool


def _data_of(db: Session, job: Job, scratch: Path) -> Data:
    check = row_check(job.method["type"])
    train = rows_of(find_file(db, TRAINING, job.training_file), check, scratch)
    if job.validation_file is not None:
        valid = rows_of(find_file(db, VALIDATION, job.validation_file), check, scratch)
        return Data(train, valid, len(valid), is_held_out=False)
    share = (job.config or {}).get(VALIDATION_SPLIT)
    held_out = hold_out(train, share, job.seed)[1] if share else []
    return Data(train, train, len(held_out), is_held_out=True)


class Rollouts:
    """The completions that a job has sampled, with the rows that they answer."""

    def __init__(self, job: Job, source: Mapping[str, Any], data: Data) -> None:
        self._wanted = rollouts_of(job.id, source)
        self._data = data
        self._of_valid = ("valid", "greedy") if data.n_valid >= LEAST_UNSEEN else ("valid",)

    def count(self, db: Session) -> int:
        return db.scalars(select(func.count()).select_from(Rollout).where(*self._wanted)).one()

    def pages(self) -> Iterator[list[Stored]]:
        columns = (Rollout.split, Rollout.step, Rollout.row, Rollout.sample)
        query = select(Rollout).where(*self._wanted).order_by(*columns).limit(PAGE)
        last: Rollout | None = None
        while True:
            behind = () if last is None else (last.split, last.step, last.row, last.sample)
            with unit_of_work() as db:
                page = db.scalars(query.where(tuple_(*columns) > behind) if behind else query).all()
                db.expunge_all()
            if not page:
                return
            yield [self._stored(rollout) for rollout in page]
            last = page[-1]

    def _stored(self, rollout: Rollout) -> Stored:
        is_valid = rollout.split in self._of_valid
        rows = self._data.valid if is_valid else self._data.train
        if rollout.row >= len(rows):
            line = rollout.row + 1
            message = f"The file has no line {line}, which completion {cursor_of(rollout)} answers."
            raise JobInvalid("invalid_training_file", message, None)
        file = "valid" if is_valid and not self._data.is_held_out else "train"
        return Stored(
            cursor_of(rollout),
            f"{file}-{rollout.row}",
            f"{rollout.split}-{rollout.step}-{rollout.row}",
            sample_of(rollout),
            rows[rollout.row].item,
            rollout.reward,
            rollout.failure,
            _why_ungraded(rollout),
        )


def _why_ungraded(rollout: Rollout) -> Failure | None:
    """Returns the failure of a completion that was lost, or that did not lie in its parts."""
    if rollout.failure in LOST:
        return Failure(FailureKind(rollout.failure), rollout.failure_message or "")
    turns = written(rollout)
    fault = turns[-1].get("unparsed") if turns else None
    return None if fault is None else Failure(FailureKind.SAMPLE_PARSE, fault)


class StoredCompletions:
    """Chat completions that were stored, each choice by itself. Their items are those that evals see."""

    def __init__(self, db: Session, regrade: Regrade) -> None:
        source = regrade.source
        wanted = [StoredChat.project_id == regrade.project_id, StoredChat.expires_at > func.now()]
        if source.get("model"):
            found = models.find(db, regrade.project_id, source["model"])
            wanted.append(StoredChat.model == (found.name if found else source["model"]))
        if source.get("metadata"):
            wanted.append(StoredChat.meta.contains(source["metadata"]))
        if source.get("created_after") is not None:
            wanted.append(StoredChat.created_at >= _moment(source["created_after"]))
        # a time is told in whole seconds, so all of the last one counts; and nothing that came since
        wanted.append(StoredChat.created_at <= regrade.created_at)
        if source.get("created_before") is not None:
            wanted.append(StoredChat.created_at < _moment(source["created_before"] + 1))
        self._query: Select[StoredChat] = select(StoredChat).where(*wanted)
        self._limit: int | None = source.get("limit")

    def count(self, db: Session) -> int:
        chosen = self._query.order_by(StoredChat.created_at, StoredChat.id).limit(self._limit).subquery()
        choices = func.jsonb_array_length(chosen.c.completion["choices"])
        return int(db.scalars(select(func.coalesce(func.sum(choices), 0))).one())

    def pages(self) -> Iterator[list[Stored]]:
        columns = (StoredChat.created_at, StoredChat.id)
        last: StoredChat | None = None
        left = self._limit
        while left is None or left > 0:
            query = self._query.order_by(*columns).limit(PAGE if left is None else min(PAGE, left))
            with unit_of_work() as db:
                behind = query if last is None else query.where(tuple_(*columns) > (last.created_at, last.id))
                page = db.scalars(behind).all()
                db.expunge_all()
            if not page:
                return
            yield [stored for chat in page for stored in _choices(chat)]
            last = page[-1]
            left = None if left is None else left - len(page)


def _choices(chat: StoredChat) -> Iterator[Stored]:
    item: dict[str, Any] = {"id": chat.id, "model": chat.model, "input": chat_messages(chat.messages)}
    item["metadata"] = chat.meta or {}
    for number, choice in enumerate(chat.completion["choices"]):
        message = choice["message"]
        text, tools = message.get("content") or "", tuple(message.get("tool_calls") or ())
        sample = Sample(text, choice["finish_reason"], output_tools=tools)
        yield Stored(f"{chat.id}/{number}", chat.id, chat.id, sample, item)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
