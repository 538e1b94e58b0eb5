"""Writes the completions that a filter shows as JSONL, each with the row that it answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.dashboard.samples import queries
from app.dashboard.samples.turns import as_json
from app.dashboard.samples.wanted import Wanted
from app.db import unit_of_work
from app.rollouts import prompts
from app.rollouts.prompts import DataFiles
from app.rollouts.schemas import RolloutOut
from app.rollouts.service import cursor_of


def lines(job_id: str, files: DataFiles, step: int, wanted: Wanted, row: int | None) -> Iterator[str]:
    """Yields a line for each completion of a step that is wanted, a page of them in memory at a time.

    `item` is the row, and `line` its place in the file; they are null where the file is gone, and `item` is
    for a row that is too long to be read for a page.
    """
    wanted = wanted._replace(after="")
    while True:
        with unit_of_work() as db:
            found = queries.completions(db, job_id, step, wanted, row)
            told = [(one.row, RolloutOut.of(one).model_dump(mode="json")) for one in found.rows]
            last = cursor_of(found.rows[-1]) if found.has_more else ""
        rows = prompts.rows_of(files, wanted.split, {number for number, _ in told}).found
        for number, one in told:
            stored = rows.get(number)
            item: dict[str, Any] = {"line": stored and stored.line, "item": stored and stored.item}
            yield as_json({**one, **item}) + "\n"
        if not last:
            return
        wanted = wanted._replace(after=last)
