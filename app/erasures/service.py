"""Takes what of the stored shall go, or whose time is over, and writes down what went.

What is told to be gone is gone in every table: completions, responses, the feedback on them, and what was
kept of them for an `Idempotency-Key`. Data sets that were made of it are told, and their files go if that is
asked for; what was trained on them is told too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, any_, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import String

from app.chat.models import StoredChat
from app.datasets import service as datasets
from app.datasets.models import Dataset, DatasetSource
from app.erasures.models import Erasure
from app.erasures.schemas import ErasureCreate
from app.errors import NotFound
from app.feedback.models import Feedback
from app.files import service as files
from app.idempotency.models import IdempotencyKey
from app.ids import random_id
from app.models import service as models
from app.pagination import Owned, Page, page_by_age
from app.responses.models import StoredResponse
from app.tenants import retention
from app.tenants.models import Project

OPERATOR = "operator"
STORED: dict[str, Any] = {"chat_completions": StoredChat, "responses": StoredResponse}
"""What is kept at its owner's wish, by the names that counts have."""
ID = re.compile(rb"(?:chatcmpl-|resp_)\w+")
BATCH = 100
"""Kept responses to requests that are looked through at a time. Chosen, not measured."""


class Gone(NamedTuple):
    """Ids of what was deleted."""

    chats: list[str]
    responses: list[str]
    feedback: int

    def counts(self) -> dict[str, int]:
        return {
            "chat_completions": len(self.chats),
            "responses": len(self.responses),
            "feedback": self.feedback,
        }


def erase(db: Session, project: Project, asked_by: str, request: ErasureCreate) -> Erasure:
    """Deletes what a request names, and returns the record of it.

    Raises `BadRequest` for a request that names nothing, and while an unfinished job uses a file that is to
    go; nothing has gone then.
    """
    request.check()
    chats = _locked(db, StoredChat, _wanted_chats(db, project.id, request))
    made_of = _datasets_of(db, project.id, chats)
    gone = Gone(
        chats,
        _locked(db, StoredResponse, _wanted_responses(db, project.id, request)),
        _count_feedback(db, chats).total(),
    )
    _delete(db, StoredChat, gone.chats)
    _delete(db, StoredResponse, gone.responses)
    forgotten = _forget_kept(db, project.id, {*gone.chats, *gone.responses})
    told = [_told_of(db, project.id, row, n_rows, request.datasets) for row, n_rows in made_of]
    counts = gone.counts() | {"kept_replies": forgotten, "files": sum(one["file_deleted"] for one in told)}
    wanted = _without_values(request)
    owners = (project.organization_id, project.id)
    record = _record(*owners, "request", counts, requested_by=asked_by, filter=wanted, datasets=told)
    db.add(record)
    db.flush()
    return record


def get(db: Session, project_id: str, erasure_id: str) -> Erasure:
    """Returns a record of the project. Raises `NotFound`."""
    mine = (Erasure.id == erasure_id, Erasure.project_id == project_id)
    found = db.scalars(select(Erasure).where(*mine)).first()
    if found is None:
        raise NotFound(f"No such erasure: {erasure_id}", param="erasure_id")
    return found


def list_erasures(
    db: Session, of: Literal["project", "organization"], owner: str, *, after: str | None, limit: int
) -> Page[Erasure]:
    """Returns the records of a project, or of all projects of an organisation, newest first."""
    column = Erasure.project_id if of == "project" else Erasure.organization_id
    query = select(Erasure).where(column == owner)
    return page_by_age(db, query, Owned(column, owner), after=after, limit=limit, newest_first=True)


def set_retention(db: Session, project: Project, kept: timedelta | None, otherwise: timedelta) -> None:
    """Sets how long what a project stores is kept; None for `otherwise`, which the operator has set.

    What is stored already goes sooner where the new time is shorter, and never later than it was to go.
    """
    retention.hold(db, project.id)
    project.completions_kept = kept
    db.flush()
    for table in STORED.values():
        ends = table.created_at + (kept or otherwise)
        cut = update(table).where(table.project_id == project.id, table.expires_at > ends)
        db.execute(cut.values(expires_at=ends), execution_options={"synchronize_session": False})


def remove_expired(db: Session, kind: str, limit: int) -> int:
    """Deletes some of what is over its time, and notes it. Returns how many rows of that kind went."""
    table = STORED[kind]
    due = select(table.id, table.project_id).where(table.expires_at <= func.now()).limit(limit)
    found = db.execute(due.with_for_update(skip_locked=True)).all()
    ids = [row.id for row in found]
    went = {project_id: Counter({kind: n}) for project_id, n in Counter(p for _, p in found).items()}
    if table is StoredChat:
        for project_id, n in _count_feedback(db, ids).items():
            went[project_id]["feedback"] = n
    _delete(db, table, ids)
    for project_id in sorted(went):  # in one order, so that two sweeps do not wait for each other
        _note_retention(db, project_id, went[project_id])
    return len(ids)


def note_project(db: Session, organization_id: str, project_id: str, rows: Mapping[str, int]) -> None:
    """Writes down that a project was erased, with how many rows of each table.

    Its earlier records stay too, without what they say of metadata.
    """
    earlier = update(Erasure).where(Erasure.project_id == project_id).values(filter=None)
    db.execute(earlier, execution_options={"synchronize_session": False})
    db.add(_record(organization_id, project_id, "project", rows, requested_by=OPERATOR))
    db.flush()


def _wanted_chats(db: Session, project_id: str, request: ErasureCreate) -> Select[Any]:
    query = _wanted(StoredChat, project_id, request)
    if request.model is not None:
        query = query.where(StoredChat.model == _model_name(db, project_id, request.model))
    if request.metadata is not None:
        query = query.where(StoredChat.meta.contains(request.metadata))
    return query


def _wanted_responses(db: Session, project_id: str, request: ErasureCreate) -> Select[Any]:
    query = _wanted(StoredResponse, project_id, request)
    if request.model is not None:
        name = _model_name(db, project_id, request.model)
        query = query.where(StoredResponse.response["model"].as_string() == name)
    if request.metadata is not None:
        query = query.where(StoredResponse.response.contains({"metadata": request.metadata}))
    return query


def _wanted(table: Any, project_id: str, request: ErasureCreate) -> Select[Any]:
    query = select(table.id).where(table.project_id == project_id)
    if request.ids is not None:
        query = query.where(_among(table.id, request.ids))
    if request.created_after is not None:
        query = query.where(table.created_at >= datetime.fromtimestamp(request.created_after, UTC))
    if request.created_before is not None:
        query = query.where(table.created_at < datetime.fromtimestamp(request.created_before, UTC))
    return query


def _model_name(db: Session, project_id: str, asked: str) -> str:
    """Returns the name under which completions are kept: an alias is told as what it stands for."""
    found = models.find(db, project_id, asked)
    return asked if found is None else found.name


def _locked(db: Session, table: Any, query: Select[Any]) -> list[str]:
    """Returns the ids of rows, which nobody changes from here on. Always in one order, against deadlocks."""
    return list(db.scalars(query.order_by(table.id).with_for_update()))


def _delete(db: Session, table: Any, ids: Sequence[str]) -> None:
    statement = delete(table).where(_among(table.id, ids))
    db.execute(statement, execution_options={"synchronize_session": False})


def _among(column: Any, ids: Sequence[str]) -> ColumnElement[bool]:
    """Returns the condition that a column is one of these: one parameter, however many they are."""
    found: ColumnElement[bool] = column == any_(literal(list(ids), ARRAY(String)))
    return found


def _count_feedback(db: Session, completion_ids: Sequence[str]) -> Counter[str]:
    """Returns how much feedback goes with these completions, by project."""
    query = select(Feedback.project_id, func.count()).where(_among(Feedback.completion_id, completion_ids))
    return Counter(dict(db.execute(query.group_by(Feedback.project_id)).all()))


def _datasets_of(db: Session, project_id: str, completion_ids: Sequence[str]) -> list[tuple[Dataset, int]]:
    """Returns the data sets that were made of these completions, with how many rows."""
    mine = (Dataset.project_id == project_id, _among(DatasetSource.completion_id, completion_ids))
    rows = func.count(DatasetSource.line.distinct())
    query = select(DatasetSource.dataset_id, rows).join(Dataset, Dataset.id == DatasetSource.dataset_id)
    found = db.execute(query.where(*mine).group_by(DatasetSource.dataset_id)).all()
    return [(db.get_one(Dataset, dataset_id), n) for dataset_id, n in sorted(found)]


def _told_of(db: Session, project_id: str, row: Dataset, n_rows: int, what: str) -> dict[str, Any]:
    """Deletes the file of a data set if that is asked for, and returns what is told of it."""
    is_deleted = False
    if what == "delete" and row.file_id is not None:
        with suppress(NotFound):  # it was deleted before
            files.remove(db, project_id, row.file_id)
            is_deleted = True
    jobs = datasets.jobs_trained(db, project_id, [row])[row.id]
    return {
        "id": row.id,
        "file_id": row.file_id,
        "rows": n_rows,
        "file_deleted": is_deleted,
        "jobs": [job.id for job in jobs],
        "models": [job.fine_tuned_model for job in jobs if job.fine_tuned_model],
    }


def _forget_kept(db: Session, project_id: str, ids: set[str]) -> int:
    """Deletes what is kept for an `Idempotency-Key` and speaks of one of these. Returns how much that was."""
    if not ids:
        return 0
    query = select(IdempotencyKey.key, IdempotencyKey.body).where(
        IdempotencyKey.owner == project_id, IdempotencyKey.body.is_not(None)
    )
    about = []
    for key, body in db.execute(query.execution_options(yield_per=BATCH)):
        if any(found.decode() in ids for found in ID.findall(body or b"")):
            about.append(key)
    gone = delete(IdempotencyKey).where(IdempotencyKey.owner == project_id, _among(IdempotencyKey.key, about))
    db.execute(gone, execution_options={"synchronize_session": False})
    return len(about)


def _without_values(request: ErasureCreate) -> dict[str, Any]:
    told = request.filter()
    if "metadata" in told:
        told["metadata"] = sorted(told["metadata"])
    if "ids" in told:
        told["ids"] = len(told["ids"])
    return told


def _note_retention(db: Session, project_id: str, went: Mapping[str, int]) -> None:
    """Adds to what went of a project today as its time was over."""
    project = db.get_one(Project, project_id)
    today = datetime.now(UTC).date()
    record = _record(project.organization_id, project.id, "retention", {}, day=today)
    values = {name: getattr(record, name) for name in ("id", "organization_id", "project_id", "cause", "day")}
    new = insert(Erasure).values(**values, counts={}, datasets=[])
    db.execute(new.on_conflict_do_nothing(index_elements=["project_id", "day"]))
    mine = (Erasure.project_id == project_id, Erasure.day == today)
    row = db.scalars(
        select(Erasure).where(*mine).with_for_update().execution_options(populate_existing=True)
    ).one()
    row.counts = dict(Counter(row.counts) + Counter(went))
    db.flush()


def _record(
    organization_id: str, project_id: str, cause: str, counts: Mapping[str, int], **values: Any
) -> Erasure:
    made = {
        "id": random_id("erase_"),
        "organization_id": organization_id,
        "project_id": project_id,
        "cause": cause,
        "counts": dict(counts),
        "datasets": [],
    }
    return Erasure(**made | values)
