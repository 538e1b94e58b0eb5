"""The grader as it is being edited: a form and JSON that say the same, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.dashboard.create.fields import Field, field_of
from app.dashboard.create.kinds import KINDS
from app.dashboard.create.reading import press, read, tree_of
from app.dashboard.create.schemas import of_graders
from app.dashboard.create.suggestions import changed_kind
from graders.strict_json import StrictJsonError, loads

NAME = "grader"
"""The first part of the names of a grader's fields."""
VIEW, JSON = "grader_view", "grader_json"
Posted = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Edited:
    """A grader in the middle of being written: `value` may be anything that JSON has.

    Attributes:
        value: what the view that is in front says.
        view: `form` or `json`.
        text: the JSON as it was typed, or as the form makes it.
        fault: why the text is no JSON; then `value` is None.
    """

    value: Any
    view: str
    text: str
    fault: str = ""

    @property
    def form(self) -> Field:
        """Returns the fields."""
        root = of_graders()
        field = field_of(root, self.value, root, NAME)
        field.choices = [(kind, kind.replace("_", " ")) for kind in KINDS]
        return field

    @property
    def kind(self) -> str:
        """Returns the type, where it names a kind that there is."""
        kind = self.value.get("type") if isinstance(self.value, Mapping) else None
        return kind if isinstance(kind, str) and kind in KINDS else ""

    @property
    def sentence(self) -> str:
        """Returns what its kind asks."""
        return KINDS[self.kind].sentence if self.kind else ""


def of_value(value: Any, view: str = "form") -> Edited:
    """Returns a grader that is given as JSON; a `multi` of one bare grader has it by its name."""
    value = _by_name(value)
    return Edited(value, view, json.dumps(value, ensure_ascii=False, indent=2))


def of_posted(posted: Posted, action: str = "", row: Mapping[str, Any] | None = None) -> Edited:
    """Returns the grader that a form holds, after what its button or its choice of a kind says.

    The view that was in front tells what was typed: `show json` and `show form` turn from one to the other,
    and text that is no JSON stays where it is. `row` is one that the grader shall read.
    """
    fields = dict(posted)
    if fields.get(VIEW) == "json":
        edited = _of_text(fields.get(JSON, "").replace("\r\n", "\n"))
        return of_value(edited.value) if action == "show form" and not edited.fault else edited
    tree = tree_of(posted, NAME)
    if not tree:
        return of_value(None)
    kind = tree.get("?", "")
    if action == "kind" and kind in KINDS:
        before = tree.get("=")
        return of_value(changed_kind(before, kind, row))
    press(tree, action)
    root = of_graders()
    return of_value(read(root, tree, root), "json" if action == "show json" else "form")


def json_value(text: str) -> Any:
    """Returns what a text is as JSON; None if it is none."""
    try:
        return loads(text.encode())
    except StrictJsonError:
        return None


def _of_text(text: str) -> Edited:
    try:
        return Edited(_by_name(loads(text.encode())), "json", text)
    except StrictJsonError as fault:
        return Edited(None, "json", text, f"This is no JSON: {fault.message}")


def _by_name(value: Any) -> Any:
    inner = value.get("graders") if isinstance(value, Mapping) and value.get("type") == "multi" else None
    if isinstance(inner, Mapping) and isinstance(inner.get("type"), str):
        return {**value, "graders": {str(inner.get("name", "grader")): dict(inner)}}
    return value
