"""Puts completions together with their prompts, scores and groups, as a page shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from app.dashboard.samples import turns
from app.dashboard.samples.fields import Fields, fields_of, tools_of
from app.dashboard.samples.queries import GroupTotal
from app.dashboard.samples.scores import Explanation, explained
from app.dashboard.samples.turns import Cut, Turn
from app.files.rows import StoredRow
from app.grading.headers import masked
from app.jobs.models import Job
from app.rollouts.models import Rollout
from app.rollouts.prompts import Rows
from app.rollouts.service import cursor_of


class Prompt(NamedTuple):
    """The row of a data file that completions answer.

    Attributes:
        line: 1-based; None where the file cannot be read.
        fault: why nothing is shown of it; empty where something is.
        start: the beginning of its text, where it is too long to be taken apart.
    """

    row: int
    line: int | None
    filename: str
    file_id: str = ""
    turns: Sequence[Turn] = ()
    fields: Fields = Fields([])
    tools: Sequence[str] = ()
    fault: str = ""
    start: Cut | None = None


class Sample(NamedTuple):
    """A completion as it is shown. `mark` is `best` or `worst` of its group, or empty."""

    id: str
    rollout: Rollout
    turns: Sequence[Turn]
    why: Explanation
    mark: str
    arm: Mapping[str, Any] | None


class Group(NamedTuple):
    """Completions that answer one prompt; `total` counts those that are not shown too."""

    step: int
    prompt: Prompt
    total: GroupTotal | None
    samples: list[Sample]


def grader_of(job: Job) -> Mapping[str, Any]:
    """Returns the grader that a job was trained by, as it is kept; empty for a job without one."""
    block: Mapping[str, Any] = job.method.get("reinforcement") or {}
    return block.get("grader") or {}


def as_written(grader: Mapping[str, Any]) -> str:
    """Returns a grader as JSON to edit, its secrets masked, what it is first: the database keeps no order.

    It is empty for a job without a grader.
    """
    if not grader:
        return ""
    shown = masked(grader)
    first = {name: shown[name] for name in ("type", "name") if name in shown}
    return json.dumps({**first, **shown}, indent=2, ensure_ascii=False)


def shelved(
    job: Job,
    rollouts: Sequence[Rollout],
    rows: Rows,
    totals: Mapping[tuple[int, int], GroupTotal],
    arms: Mapping[int, Mapping[str, Any]],
    most: int = turns.IN_LIST,
) -> list[Group]:
    """Returns completions in their order; those that follow each other and answer the same prompt at the same
    step are together. `totals` are by step and row."""
    return [
        Group(
            step,
            prompt_of(rows, row, most),
            totals.get((step, row)),
            list(_samples(job, some, rows, totals, arms, most)),
        )
        for (step, row), some in groupby(rollouts, key=lambda one: (one.step, one.row))
    ]


def prompt_of(rows: Rows, row: int, most: int = turns.IN_LIST) -> Prompt:
    """Returns what is shown of a row."""
    stored: StoredRow | None = rows.found.get(row)
    name = rows.file.filename or rows.file.file_id
    if stored is None:
        return Prompt(row, None, name, fault=rows.fault or "The file does not have this row any more.")
    if stored.item is None:
        return Prompt(
            row, stored.line, name, start=Cut(stored.start[:most], stored.size - min(most, len(stored.start)))
        )
    listed, tools = fields_of(stored.item), tools_of(stored.item)
    return Prompt(
        row, stored.line, name, rows.file.file_id, turns.prompt_turns(stored.item, most), listed, tools
    )


def _samples(
    job: Job,
    some: Iterator[Rollout],
    rows: Rows,
    totals: Mapping[tuple[int, int], GroupTotal],
    arms: Mapping[int, Mapping[str, Any]],
    most: int,
) -> Iterator[Sample]:
    for rollout in some:
        stored = rows.found.get(rollout.row)
        yield Sample(
            cursor_of(rollout),
            rollout,
            turns.completion_turns(rollout, most),
            explained(grader_of(job), rollout, stored.item if stored else None),
            _mark(rollout.reward, totals.get((rollout.step, rollout.row))),
            arms.get(rollout.step),
        )


def _mark(reward: float | None, total: GroupTotal | None) -> str:
    """Tells whether a reward is the best or the worst of its group, where its rewards differ."""
    if reward is None or total is None or total.low == total.high:
        return ""
    return "best" if reward == total.high else "worst" if reward == total.low else ""
