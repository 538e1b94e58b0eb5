"""Works out the answer that a grader should like best from its own reference templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graders import strict_json
from graders.fields.spec import FieldsSpec
from graders.math.extract import as_answer
from graders.math.spec import MathSpec
from graders.spec import GraderSpec, SingleSpec, single_graders
from graders.spec_base import ComparingSpec
from graders.template import Template, Variable, as_text
from graders.types import GradeFailed, Sample

ANSWER_KEYS = (
    "answer",
    "reference",
    "reference_answer",
    "target",
    "label",
    "gold",
    "solution",
    "expected",
    "output",
)
"""Keys of rows that are taken to hold the right answer where a grader does not tell."""
_NOTHING = Sample("")


@dataclass(frozen=True)
class Reference:
    """Holds an answer as text, and as the JSON value of that text; None where graders read it as text."""

    text: str
    value: Any = None


class _Unknown(Exception):
    """Says that the templates do not tell what the answer would be."""


def reference_of(spec: GraderSpec, item: Mapping[str, Any]) -> Reference | None:
    """Returns the answer to a row that satisfies every sub-grader that compares with a reference.

    None where no sub-grader does, where two want different answers, or where the input template cannot be
    turned round (`{{sample.output_text}} and more`).
    """
    texts: list[str] = []
    tree: Any = None
    try:
        for single in single_graders(spec):
            for path, value in _wanted(single, item):
                if path is None:
                    texts.append(as_text(value))
                else:
                    tree = _put(tree, path, value)
    except (_Unknown, GradeFailed):
        return None
    return _combined(texts, tree)


def reference_at(path: Variable, item: Mapping[str, Any]) -> Reference | None:
    """Returns the answer that a row holds under a path; None where it has none there."""
    try:
        value = path.value(_NOTHING, item)
    except GradeFailed:
        return None
    return Reference(value) if isinstance(value, str) else Reference(as_text(value), value)


def _wanted(spec: SingleSpec, item: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...] | None, Any]]:
    """Yields what a grader wants, as (where below `sample.output_json`, the value).

    The place is None for the whole text.
    """
    if not isinstance(spec, ComparingSpec) or getattr(spec, "operation", "") == "ne":
        return
    reference = Template.parse(spec.reference)
    if reference.reads_sample:
        raise _Unknown
    value = reference.value(_NOTHING, item)
    if isinstance(spec, FieldsSpec) and isinstance(value, str):
        try:
            value = strict_json.loads(value.strip())
        except strict_json.StrictJsonError:
            raise _Unknown from None
    if isinstance(spec, MathSpec):
        value = as_answer(as_text(value), spec.extract)
    variable, value = _turned_round(Template.parse(spec.input), value, item)
    match variable.steps:
        case ("output_text",) | ("choices", 0, "message", "content"):
            yield (() if isinstance(spec, FieldsSpec) else None), value
        case ("output_json", *path):
            yield tuple(path), value
        case _:
            raise _Unknown


def _turned_round(template: Template, value: Any, item: Mapping[str, Any]) -> tuple[Variable, Any]:
    """Returns the one place where the sample stands in an input template, and what must stand there."""
    before, after, found = "", "", None
    for piece in template.pieces:
        if isinstance(piece, Variable) and piece.namespace == "sample":
            if found is not None:
                raise _Unknown
            found = piece
            continue
        text = piece if isinstance(piece, str) else as_text(piece.value(_NOTHING, item))
        before, after = (before + text, after) if found is None else (before, after + text)
    if found is None:
        raise _Unknown
    if not before and not after:
        return found, value
    text = as_text(value)
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        raise _Unknown
    return found, text[len(before) : len(text) - len(after)]


def _put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Returns the tree with a value at a path; raises `_Unknown` if another one is there."""
    if not path:
        return _merged(tree, value)
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        if step > 1000 or not isinstance(tree, list | None):
            raise _Unknown
        grown = [*(tree or []), *[None] * (step + 1 - len(tree or []))]
        grown[step] = _put(grown[step], rest, value)
        return grown
    if not isinstance(tree, dict | None):
        raise _Unknown
    return {**(tree or {}), step: _put((tree or {}).get(step), rest, value)}


def _merged(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **{key: _merged(first.get(key), value) for key, value in second.items()}}
    if first is not None and first != second:
        raise _Unknown
    return second


def _combined(texts: list[str], tree: Any) -> Reference | None:
    if tree is None:
        return Reference(texts[0]) if texts and len(set(texts)) == 1 else None
    if not texts:
        return Reference(json.dumps(tree, ensure_ascii=False), tree)
    try:
        agree = len(set(texts)) == 1 and strict_json.loads(texts[0]) == tree
    except strict_json.StrictJsonError:
        agree = False
    return Reference(texts[0], tree) if agree else None
