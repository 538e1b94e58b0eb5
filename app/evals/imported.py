"""Keeps evals that ran at another service, with their runs and output items, as if they had run here.

They keep their ids, so that an import which broke off goes on, and what names them still leads to them. A run
is written with its items in one transaction; one that is there is whole.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.evals.models import NO_RESULTS, TERMINAL, Eval, EvalOutputItem, EvalRun
from app.evals.schemas import EvalOut, OutputItemOut, RunOut, SampleUsage
from app.storable import storable
from graders import GraderInvalid, parse_grader

STATUSES = ("pass", "fail", "error")
NO_USAGE = dict.fromkeys(("invocation_count", *SampleUsage.model_fields), 0)
NOT_OVER = {"code": "not_finished", "message": "The run was not over when it was exported."}
BATCH = 500
"""Items that are inserted together. Chosen, not measured."""


class NotKept(Exception):
    """Something cannot be kept here; the text says why."""


def keep_eval(db: Session, project_id: str, exported: Mapping[str, Any]) -> tuple[Eval, bool]:
    """Returns the eval, and whether it is new. Raises `NotKept`."""
    there = db.get(Eval, exported["id"])
    if there is not None:
        if there.project_id != project_id:
            raise NotKept("another project has this eval already")
        return there, False
    made = Eval(
        id=exported["id"],
        project_id=project_id,
        name=storable(exported.get("name") or "Imported eval"),
        meta=_metadata(exported),
        data_source_config=storable(exported["data_source_config"]),
        testing_criteria=storable([_criterion(one) for one in exported["testing_criteria"]]),
        created_at=_moment(exported),
        updated_at=_moment(exported),
    )
    _check(lambda: EvalOut.of(made))
    db.add(made)
    db.flush()
    return made, True


def unusable_criteria(exported: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with criteria that no run here could use. What they said once is kept all the
    same."""
    for one in exported["testing_criteria"]:
        try:
            parse_grader({name: value for name, value in one.items() if name != "id"})
        except GraderInvalid as fault:
            yield f"{one.get('name') or one.get('id')}: {fault.message}"


def keep_run(
    db: Session, of: Eval, exported: Mapping[str, Any], items: Iterable[Mapping[str, Any]]
) -> int | None:
    """Writes a run with its items. Returns how many those are, or None if the run is there. Raises
    `NotKept`."""
    if (there := db.get(EvalRun, exported["id"])) is not None:
        if there.eval_id != of.id:
            raise NotKept("another eval has this run already")
        return None
    run = _run(of, exported)
    _check(lambda: RunOut.of(run, ""))
    db.add(run)
    db.flush()
    types = {one["id"]: one.get("type", "") for one in of.testing_criteria}
    rows = [_item(run, seq, item, types) for seq, item in enumerate(items, 1)]
    for start in range(0, len(rows), BATCH):
        db.execute(insert(EvalOutputItem), rows[start : start + BATCH])
    run.total = max(len(rows), run.result_counts["total"])
    return len(rows)


def _run(of: Eval, exported: Mapping[str, Any]) -> EvalRun:
    is_over = exported["status"] in TERMINAL
    failure = exported.get("error") if exported["status"] == "failed" else None
    return EvalRun(
        id=exported["id"],
        eval_id=of.id,
        project_id=of.project_id,
        status=exported["status"] if is_over else "failed",
        name=storable(exported.get("name") or "Imported run"),
        model=exported.get("model") or "",
        meta=_metadata(exported),
        data_source=storable(exported["data_source"]),
        created_at=_moment(exported),
        finished_at=_moment(exported),
        error=(storable(_known(failure)) if failure else None) if is_over else dict(NOT_OVER),
        result_counts=NO_RESULTS | _known(exported.get("result_counts") or {}),
        per_model_usage=[NO_USAGE | _known(one) for one in exported.get("per_model_usage") or ()],
        per_testing_criteria_results=exported.get("per_testing_criteria_results") or [],
    )


def _item(run: EvalRun, seq: int, exported: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Returns the row of an item, in the form in which items are told here."""
    status = exported.get("status")
    values = {
        "id": exported["id"],
        "run_id": run.id,
        "seq": seq,
        "datasource_item_id": int(exported.get("datasource_item_id") or 0),
        "status": status if status in STATUSES else "error",
        "datasource_item": storable(exported.get("datasource_item") or {}),
        "given": None,
        "results": [storable(_result(one, types)) for one in exported.get("results") or ()],
        "sample": storable(_sample(exported.get("sample") or {})),
        "created_at": _moment(exported),
    }
    _check(lambda: OutputItemOut.of(EvalOutputItem(**values), run))
    return values


def _result(exported: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    name = str(exported.get("name") or "")
    score = exported.get("score")
    passed = bool(exported.get("passed"))
    return {
        **exported,
        "name": name,
        "type": exported.get("type") or types.get(name, ""),
        "score": float(passed if score is None else score),
        "passed": passed,
    }


def _sample(exported: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was asked and answered, with text for contents of several parts."""
    found = _known(exported)
    for side in ("input", "output"):
        found[side] = [_message(_known(one)) for one in found.get(side) or ()]
    for part in ("usage", "error"):
        found[part] = _known(found.get(part) or {})
    return found


def _message(exported: Mapping[str, Any]) -> dict[str, Any]:
    return {**exported, "role": exported.get("role", "assistant"), "content": _text(exported.get("content"))}


def _text(content: Any) -> str:
    """Returns a content, a string, a part or several, as text; of what is no text the JSON."""
    parts = content if isinstance(content, list) else [content]
    return "".join(_text_of(part) for part in parts)


def _text_of(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) else part
    if isinstance(text, str):
        return text
    return "" if part is None else json.dumps(part)


def _known(exported: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is not null: here everything else has a value of its own that says as much."""
    return {name: value for name, value in exported.items() if value is not None}


def _criterion(exported: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a criterion with an id: results name theirs."""
    return {"id": exported.get("id") or f"{exported.get('name')}-{uuid.uuid4()}", **exported}


def _metadata(exported: Mapping[str, Any]) -> dict[str, Any] | None:
    return storable(exported["metadata"]) if exported.get("metadata") else None


def _moment(exported: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(exported["created_at"], UTC)


def _check(tell: Callable[[], object]) -> None:
    """Raises `NotKept` for what could not be told any more once it was kept."""
    try:
        tell()
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotKept(f"'{where}' has another form than is known here: {first['msg']}") from None
