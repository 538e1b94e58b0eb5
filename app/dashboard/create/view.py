"""All that the form of a new job shows, from what stands in it and what the project has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy.orm import Session

from app.dashboard.create import builder, queries, suggestions
from app.dashboard.create.builder import Posted
from app.dashboard.create.draft import FORMATS, METHODS, Draft, in_lines
from app.dashboard.create.numbers import numbers, resolve
from app.dashboard.create.problems import Problem, by_path
from app.dashboard.create.queries import Data
from app.dashboard.create.rows import as_said, shortened
from app.dashboard.create.snippets import snippets
from app.dashboard.create.trials import Tried, suggested
from methods.hyperparameters import Method
from methods.rows import Row

ROWS = 3
"""Rows that a grader is tried on."""


@dataclass
class Trial:
    """One row that the grader is tried on, with the answer that is graded.

    Attributes:
        answer: what stands in the field.
        was: the answer that was suggested; while the two are alike, a better suggestion takes its place.
    """

    row: Row
    answer: str
    was: str
    result: Tried | None = None

    @property
    def text(self) -> str:
        """Returns the row as people read it."""
        return in_lines(self.row.item)

    @property
    def asked(self) -> str:
        """Returns what the row asks: its last message."""
        messages = self.row.item["messages"]
        return shortened(as_said(messages[-1].get("content")))


def trials(data: Data | None, grader: Any, posted: Posted) -> list[Trial]:
    """Returns the first rows of a file, each with the answer that was typed or else the one that the grader
    should like best."""
    fields = {name: text.replace("\r\n", "\n") for name, text in posted if name.startswith("try/")}
    found = []
    for row in data.look.rows[:ROWS] if data else ():
        best = suggested(grader, row.item)
        at = f"try/{data.file.id if data else ''}/{row.line}"
        answer, was = fields.get(f"{at}/answer"), fields.get(f"{at}/was")
        is_typed = answer is not None and answer != was
        found.append(Trial(row, answer if is_typed and answer is not None else best, best))
    return found


def first_row(db: Session, project_id: str, posted: Posted) -> Mapping[str, Any] | None:
    """Returns the first row of the training file that is chosen."""
    chosen = dict(posted).get("training_file", "")
    files = queries.file_choices(db, project_id, [chosen])
    data = queries.data(files, chosen, dict(posted).get("method", ""), is_training=True)
    return data.look.rows[0].item if data and data.look.rows else None


def settle_grader(draft: Draft, train: Data | None, posted: Posted) -> None:
    """Puts a grader that fits the rows in place of none, and of one that was suggested for another file."""
    if draft.method != "reinforcement":
        return
    row = train.look.rows[0].item if train and train.look.rows else None
    was = builder.json_value(dict(posted).get("grader_suggested", ""))
    if not draft.grader.fault and (draft.grader.value in (None, {}) or draft.grader.value == was):
        draft.grader = builder.of_value(suggestions.for_row(row), draft.grader.view)


def values_of(
    db: Session,
    project_id: str,
    draft: Draft,
    posted: Posted,
    base_url: str,
    problems: Sequence[Problem] = (),
) -> dict[str, Any]:
    """Returns what the templates draw."""
    chosen = [draft.texts["training_file"], draft.texts["validation_file"]]
    files = queries.file_choices(db, project_id, chosen)
    train = queries.data(files, chosen[0], draft.method, is_training=True)
    valid = queries.data(files, chosen[1], draft.method, is_training=False)
    settle_grader(draft, train, posted)
    body, faults = draft.body()
    base = queries.base_of(db, project_id, draft.texts["model"])
    block = body["method"].get(draft.method) or {}
    method = cast("Method", draft.method)
    looks = (train.look if train else None, valid.look if valid else None)
    found = resolve(method, block.get("hyperparameters") or {}, base, *looks, body.get("resources"))
    usual, others = numbers(method, found)
    placed = [*faults, *problems]
    row = train.look.rows[0].item if train and train.look.rows else None
    return {
        "draft": draft,
        "methods": METHODS,
        "formats": FORMATS,
        "models": queries.model_choices(db, project_id, draft.texts["model"]),
        "files": files,
        "train": train,
        "valid": valid,
        "usual": usual,
        "others": others,
        "resolved": found,
        "paths": suggestions.paths_of(row),
        "suggested": in_lines(suggestions.for_row(row)),
        "trials": trials(train, draft.grader.value, posted) if draft.method == "reinforcement" else [],
        "problems": placed,
        "wrong": by_path(placed),
        "has_others": any(draft.numbers.get(one.name, "").strip() for one in others),
        "snippets": snippets(body, base_url),
        "is_ready": bool(body.get("model") and body.get("training_file")),
    }
