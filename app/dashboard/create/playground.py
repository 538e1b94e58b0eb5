"""Serves the playground for graders: a row, an answer and a grader, tried together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.dashboard import sign_in
from app.dashboard.create import builder, queries, trials
from app.dashboard.create.asking import Fields, caller_of
from app.dashboard.create.builder import Edited, Posted
from app.dashboard.create.draft import in_lines
from app.dashboard.create.kinds import KINDS, Kind
from app.dashboard.create.rows import row_at
from app.dashboard.create.suggestions import for_row, paths_of
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from graders.strict_json import StrictJsonError, loads

router = APIRouter(prefix="/graders")
LAST_LINE = 10**9


class Tried(NamedTuple):
    """What stands in the playground beside the grader: a row as JSON, and an answer to it."""

    item: str
    answer: str

    @property
    def row(self) -> Any:
        """Returns the row. Raises `StrictJsonError`."""
        return loads(self.item.encode()) if self.item.strip() else {}


@router.get("")
def playground(
    request: Request,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    file: Annotated[str, Query(max_length=64)] = "",
    line: Annotated[int, Query(ge=1, le=LAST_LINE)] = 1,
) -> Response:
    """Shows the example of a kind, or a row of a file with a grader that can read it."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        files = queries.file_choices(db, project.id, [file])
        chosen = next((one for one in files if one.id == file), None)
        found = row_at(chosen.storage_key, line) if chosen else None
        if isinstance(found, Mapping):
            grader = for_row(found)
            stands = Tried(in_lines(found), trials.suggested(grader, found))
        else:
            example = KINDS.get(kind or "", KINDS["string_check"])
            grader, stands = dict(example.grader), _of(example)
        edited = builder.of_value(grader)
        values = _values(edited, stands)
        fault = f"The file has no row at line {line}." if chosen and found is None else ""
        return page(
            request,
            project,
            "create/graders.html",
            kinds=KINDS,
            files=files,
            file=file,
            line=line,
            row_fault=fault,
            is_asked=chosen is not None or kind is not None,
            **values,
        )


@router.post("/form", dependencies=FROM_HERE)
def form(request: Request, fields: Fields) -> Response:
    """Shows the grader after one of its buttons was pressed."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        action, stands = dict(fields).get("do", ""), _stands(fields)
        edited = builder.of_posted(fields, action)
        is_new = action == "kind" and edited.kind != "" and _is_example(stands)
        if is_new:  # nobody has written a row yet: that of the kind fits it
            example = KINDS[edited.kind]
            edited, stands = builder.of_value(dict(example.grader)), _of(example)
        return page(request, project, "create/builder_part.html", is_new=is_new, **_values(edited, stands))


@router.post("/run", dependencies=FROM_HERE)
async def run(request: Request, fields: Fields) -> Response:
    """Grades the answer that stands in the page."""
    caller = await run_in_threadpool(caller_of, request)
    if caller is None:
        return to_login(request)
    edited, stands = builder.of_posted(fields), _stands(fields)
    result = None
    fault = edited.fault
    try:
        row = stands.row
    except StrictJsonError as problem:
        fault = fault or f"The row is no JSON: {problem.message}"
    else:
        if not isinstance(row, dict):
            fault = fault or 'A row is one JSON object, such as {"answer": "Paris"}.'
    if not fault:
        result = await trials.tried(caller, edited.value, stands.answer, row)
    return await run_in_threadpool(_result, request, result, fault)


def _result(request: Request, result: trials.Tried | None, fault: str) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return page(request, project, "create/result_part.html", result=result, fault=fault)


def _of(example: Kind) -> Tried:
    return Tried(in_lines(example.item), example.sample)


def _is_example(stands: Tried) -> bool:
    return any(stands == _of(example) for example in KINDS.values())


def _stands(fields: Posted) -> Tried:
    given = {name: text.replace("\r\n", "\n") for name, text in fields}
    return Tried(given.get("item", ""), given.get("answer", ""))


def _values(edited: Edited, stands: Tried) -> dict[str, Any]:
    try:
        row = stands.row
    except StrictJsonError:
        row = None
    paths = paths_of(row) if isinstance(row, Mapping) else []
    return {"grader": edited, "stands": stands, "paths": paths, "wrong": {}}
