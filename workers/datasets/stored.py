"""Reads what rows are made of: stored completions that fit a filter, with what was said of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, String, any_, exists, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app.chat.messages import chat_messages
from app.chat.models import StoredChat
from app.datasets.models import Dataset
from app.feedback.models import Feedback
from methods.messages import text_of

PAGE = 500
"""Completions that are read at a time. Chosen, not measured."""


class Said(NamedTuple):
    """One piece of feedback."""

    id: str
    choice: int
    reward: float | None
    correction: str | None
    reference: Any
    created_at: datetime


class Choice(NamedTuple):
    """What the model answered, and whether it was cut at its length. Rows hold answers of text: one that
    calls tools has none here, and thoughts stay out."""

    text: str
    is_cut: bool


@dataclass(frozen=True)
class Kept:
    """A stored completion. `said` is in the order in which it was given."""

    id: str
    model: str
    messages: list[dict[str, Any]]
    choices: list[Choice]
    created_at: datetime
    said: tuple[Said, ...]

    def reward(self, choice: int) -> float | None:
        """Returns the mean of a choice's rewards; None without any."""
        given = [each.reward for each in self.said if each.choice == choice and each.reward is not None]
        return sum(given) / len(given) if given else None

    def rewarded(self, choice: int) -> list[str]:
        """Returns the ids of the feedback that rewards a choice."""
        return [each.id for each in self.said if each.choice == choice and each.reward is not None]

    def newest(self, what: str) -> Said | None:
        """Returns the newest feedback that has a `correction` or a `reference`."""
        return next((each for each in reversed(self.said) if getattr(each, what) is not None), None)


def read_page(
    db: Session, dataset: Dataset, after: tuple[datetime, str] | None, limit: int = PAGE
) -> list[Kept]:
    """Returns the completions behind a place, oldest first, that the data set's filter lets through.

    What was stored or said after the data set was asked for is not seen, so that an attempt which was broken
    off and the next one see the same.
    """
    query = _fitting(dataset)
    if after is not None:
        query = query.where(tuple_(StoredChat.created_at, StoredChat.id) > tuple_(*after))
    rows = db.scalars(query.order_by(StoredChat.created_at, StoredChat.id).limit(limit)).all()
    said = _said_of(db, dataset, [row.id for row in rows])
    return [_kept(row, said[row.id]) for row in rows]


def fits_rewards(kept: Kept, wanted: Mapping[str, Any]) -> bool:
    """Tells whether a choice's mean reward lies within the filter's bounds, if it has any."""
    least, most = wanted["min_reward"], wanted["max_reward"]
    if least is None and most is None:
        return True
    means = [kept.reward(choice) for choice in range(len(kept.choices))]
    return any(
        mean is not None and (least is None or mean >= least) and (most is None or mean <= most)
        for mean in means
    )


def count(db: Session, dataset: Dataset) -> int:
    """Returns how many completions there are to look at."""
    return db.scalars(select(func.count()).select_from(_fitting(dataset).subquery())).one()


def still_there(db: Session, completion_ids: Sequence[str]) -> set[str]:
    """Returns those of the completions that are still kept; nobody deletes them until this transaction
    ends."""
    among = StoredChat.id == any_(literal(list(completion_ids), ARRAY(String)))
    query = select(StoredChat.id).where(among, StoredChat.expires_at > func.now()).order_by(StoredChat.id)
    return set(db.scalars(query.with_for_update(read=True, key_share=True)))


def _fitting(dataset: Dataset) -> Select[StoredChat]:
    """Returns the query of completions that fit all of the filter but its bounds of rewards."""
    wanted = dataset.request["filter"]
    query = select(StoredChat).where(
        StoredChat.project_id == dataset.project_id,
        StoredChat.expires_at > func.now(),
        StoredChat.created_at <= dataset.created_at,
    )
    if wanted["model"] is not None:
        query = query.where(StoredChat.model == wanted["model"])
    if wanted["metadata"]:
        query = query.where(StoredChat.meta.contains(wanted["metadata"]))
    if wanted["created_after"] is not None:
        query = query.where(StoredChat.created_at >= datetime.fromtimestamp(wanted["created_after"], UTC))
    if wanted["created_before"] is not None:
        query = query.where(StoredChat.created_at < datetime.fromtimestamp(wanted["created_before"], UTC))
    if wanted["feedback"]:
        said = exists().where(
            Feedback.completion_id == StoredChat.id,
            Feedback.created_at <= dataset.created_at,
            func.num_nonnulls(*(getattr(Feedback, what) for what in wanted["feedback"])) > 0,
        )
        query = query.where(said)
    return query


def _said_of(db: Session, dataset: Dataset, ids: Sequence[str]) -> Mapping[str, tuple[Said, ...]]:
    query = select(Feedback).where(Feedback.completion_id.in_(ids), Feedback.created_at <= dataset.created_at)
    found: dict[str, tuple[Said, ...]] = defaultdict(tuple)
    for row in db.scalars(query.order_by(Feedback.created_at, Feedback.id)):
        said = Said(row.id, row.choice, row.reward, row.correction, row.reference, row.created_at)
        found[row.completion_id] += (said,)
    return found


def _kept(row: StoredChat, said: tuple[Said, ...]) -> Kept:
    return Kept(
        id=row.id,
        model=row.model,
        messages=[_plain(message) for message in chat_messages(row.messages)],
        choices=list(_choices(row.completion)),
        created_at=row.created_at,
        said=said,
    )


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a message whose content is one text, so that a redaction function meets no other."""
    content = message.get("content")
    return message if content is None else {**message, "content": text_of(content)}


def _choices(completion: Mapping[str, Any]) -> Iterator[Choice]:
    for choice in completion["choices"]:
        message = choice["message"]
        text = "" if message.get("tool_calls") else message["content"] or ""
        yield Choice(text, choice["finish_reason"] == "length")
