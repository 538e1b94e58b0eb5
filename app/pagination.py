"""Pages lists: `after` is the id of the last item seen, and the order is total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, Self, TypeVar, cast

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from app import left_places

Row = TypeVar("Row")
Item = TypeVar("Item")

MAX_CURSOR = 256
MAX_NUMBER = 2**31 - 1
"""The largest number that a column of steps, rows and the like holds."""

Cursor = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR,
        description="Id of the last item of the page before; an unknown one is ignored.",
    ),
]
Limit = Annotated[int, Query(ge=0, le=1000, description="Most items on the page.")]
Number = Annotated[int | None, Query(ge=0, le=MAX_NUMBER)]
"""A step, a row and the like that a query may name."""


class Page(NamedTuple, Generic[Row]):
    """Some rows, and whether there are more behind them."""

    rows: list[Row]
    has_more: bool


class HasId(Protocol):
    id: str


class Listed(BaseModel, Generic[Item]):
    """A page on the wire, of things that have an `id`."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def holding(cls, data: Sequence[Item], has_more: bool) -> Self:
        """Makes a page of these things, in this order."""
        ids = [cast(HasId, item).id for item in data]
        first, last = (ids[0], ids[-1]) if ids else (None, None)
        return cls(data=list(data), first_id=first, last_id=last, has_more=has_more)


def fetch_page(db: Session, query: Select[Row], limit: int) -> Page[Row]:
    """Returns the first `limit` rows of an ordered query."""
    rows = list(db.scalars(query.limit(limit + 1)))
    return Page(rows[:limit], len(rows) > limit)


class Owned(NamedTuple):
    """Whose rows a list shows."""

    column: Any
    """The column of the listed table that names the owner."""
    owner: str

    @property
    def table(self) -> Any:
        return self.column.class_

    def place(self, db: Session, row_id: str, sorted_by: Sequence[str]) -> tuple[Any, ...] | None:
        """Returns the values of these columns of a row of the owner's, which may be deleted by now.

        The list's filters do not count, so that a walk goes on behind a row that has left the list
        meanwhile. Returns None for what is no row of the owner's.
        """
        table, columns = self.table, [getattr(self.table, name) for name in sorted_by]
        query = select(*columns).where(self.column == self.owner, table.id == row_id)
        if row := db.execute(query).first():
            return tuple(row)
        left = left_places.find(db, table.__tablename__, self.owner, row_id)
        if left is None:
            return None
        return tuple(row_id if name == "id" else getattr(left, name) for name in sorted_by)


def page_by_age(
    db: Session,
    query: Select[Row],
    of: Owned,
    *,
    after: str | None,
    limit: int,
    newest_first: bool,
    by: Literal["created_at", "updated_at"] = "created_at",
) -> Page[Row]:
    """Returns rows by when they were made, or last changed, then by `id`, behind the one whose id is `after`.

    What is no id of the owner's is ignored.
    """
    columns = (getattr(of.table, by), of.table.id)
    if seen := of.place(db, after, (by, "id")) if after else None:
        place, cursor = tuple_(*columns), tuple_(*seen)
        query = query.where(place < cursor if newest_first else place > cursor)
    sorted_by = (column.desc() if newest_first else column.asc() for column in columns)
    return fetch_page(db, query.order_by(*sorted_by), limit)


def page_of(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> Page[dict[str, Any]]:
    """Returns a page of things in memory, behind the one whose `id` is `after`; an unknown one is ignored."""
    ids = [item["id"] for item in items]
    start = ids.index(after) + 1 if after in ids else 0
    return Page(list(items[start : start + limit]), start + limit < len(items))


def number_after(cursor: str | None) -> int | None:
    """Reads a cursor that is a count. Returns None if it is none, so that it is ignored like every unknown
    one."""
    if not cursor or not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 10:
        return None
    return min(int(cursor), MAX_NUMBER)
