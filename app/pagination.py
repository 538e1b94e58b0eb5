"""Lists in pages: `after` is the id of the last item seen, the order is total."""

from __future__ import annotations

from typing import Annotated, Generic, NamedTuple, TypeVar

from fastapi import Query
from sqlalchemy import Select
from sqlalchemy.orm import Session

Row = TypeVar("Row")

MAX_CURSOR = 256
MAX_NUMBER = 2**31 - 1

Cursor = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR,
        description="Id of the last item of the page before; an unknown one is ignored.",
    ),
]
Limit = Annotated[int, Query(ge=0, le=1000, description="Most items on the page.")]


class Page(NamedTuple, Generic[Row]):
    """Some rows, and whether there are more behind them."""

    rows: list[Row]
    has_more: bool


def fetch_page(db: Session, query: Select[Row], limit: int) -> Page[Row]:
    """The first `limit` rows of an ordered query."""
    rows = list(db.scalars(query.limit(limit + 1)))
    return Page(rows[:limit], len(rows) > limit)


def number_after(cursor: str | None) -> int | None:
    """A cursor that is a count; None if it is none, so that it is ignored like every unknown one."""
    if not cursor or not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 10:
        return None
    return min(int(cursor), MAX_NUMBER)
