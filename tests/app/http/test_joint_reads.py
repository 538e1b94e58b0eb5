"""Reads carried out together: what each sees, and that nobody's failure or leaving is another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.http.joint_reads import JointReads

pytestmark = pytest.mark.usefixtures("db")


class Shelf:
    """What there is to read, with a door that holds readers back."""

    def __init__(self) -> None:
        self.values = {"a": 1, "b": 2}
        self.reads: list[set[str]] = []
        self.entered = threading.Event()
        self.door = threading.Event()

    def read(self, db: Session, keys: Collection[str]) -> dict[str, int]:
        assert db.scalars(text("SELECT 1")).one() == 1
        seen = {key: self.values[key] for key in keys if key in self.values}
        self.reads.append(set(keys))
        self.entered.set()
        assert self.door.wait(20)
        if "broken" in keys:
            raise RuntimeError("no such shelf")
        return seen


async def entered(shelf: Shelf) -> None:
    await asyncio.to_thread(shelf.entered.wait, 20)


def test_what_is_asked_during_a_read_waits_for_the_next_which_sees_newer_values() -> None:
    shelf = Shelf()

    async def ask() -> None:
        reads = JointReads(shelf.read)
        early = asyncio.create_task(reads.get("a"))
        await entered(shelf)
        shelf.values["a"] = 10
        late = [asyncio.create_task(reads.get(key)) for key in ("a", "b", "a", "missing")]
        await asyncio.sleep(0)
        shelf.door.set()
        assert await early == 1
        assert await asyncio.gather(*late) == [10, 2, 10, None]

    asyncio.run(ask())
    assert shelf.reads == [{"a"}, {"a", "b", "missing"}]


def test_a_failure_reaches_those_of_that_read_and_nobody_later() -> None:
    shelf = Shelf()

    async def ask() -> None:
        reads = JointReads(shelf.read)
        first = [asyncio.create_task(reads.get(key)) for key in ("broken", "a")]
        await entered(shelf)
        later = asyncio.create_task(reads.get("a"))
        await asyncio.sleep(0)
        shelf.door.set()
        failed = await asyncio.gather(*first, return_exceptions=True)
        assert [str(problem) for problem in failed] == ["no such shelf"] * 2
        assert await later == 1
        assert await reads.get("b") == 2

    asyncio.run(ask())


def test_a_client_that_leaves_takes_nobodys_answer_along() -> None:
    shelf = Shelf()

    async def ask() -> None:
        reads = JointReads(shelf.read)
        leaving, staying = (asyncio.create_task(reads.get("a")) for _ in range(2))
        await entered(shelf)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        shelf.door.set()
        assert await staying == 1

    asyncio.run(ask())
