"""Compares two runs over the same rows: criterion by criterion, paired by what the rows hold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from methods.paired import Compared

PASSED = "all passed"
"""Stands beside the criteria: whether an answer passed all of them."""
LEAST_ROWS = 4
"""Rows from which an interval is told: of fewer, all differences have the same sign by luck too often."""
UUID = 37
"""Characters at the end of a criterion's id that tell evals apart: a hyphen and a UUID."""

Scores = dict[str, float]
Row = tuple[str, int]
"""A row's content, and which of several equal rows it is."""


class Criterion(NamedTuple):
    """How two runs compare by one criterion; `found` is None where no row has a score by both."""

    name: str
    mean_a: float | None
    mean_b: float | None
    found: Compared | None


class Comparison(NamedTuple):
    """How two runs compare. `only_a` and `only_b` are rows that the other one has not."""

    rows: int
    only_a: int
    only_b: int
    criteria: list[Criterion]


def compare(items_a: Iterable[Mapping[str, Any]], items_b: Iterable[Mapping[str, Any]]) -> Comparison:
    """Returns how the second run compares with the first."""
    a, b = rows_of(items_a), rows_of(items_b)
    both = [row for row in a if row in b]
    names = list(dict.fromkeys(name for run in (a, b) for row in both for name in run[row]))
    names.sort(key=lambda name: name == PASSED)
    criteria = [_criterion(name, [a[row] for row in both], [b[row] for row in both]) for name in names]
    return Comparison(len(both), len(a) - len(both), len(b) - len(both), criteria)


def rows_of(items: Iterable[Mapping[str, Any]]) -> dict[Row, Scores]:
    """Returns the mean scores of each row, over its answers that could be judged."""
    by_place: dict[tuple[str, int], list[Scores]] = defaultdict(list)
    for item in items:
        content = json.dumps(item["datasource_item"], sort_keys=True)
        by_place[content, item["datasource_item_id"]].append(_scores(item))
    seen: Counter[str] = Counter()
    rows: dict[Row, Scores] = {}
    for (content, _), answers in by_place.items():
        rows[content, seen[content]] = _means(answers)
        seen[content] += 1
    return rows


def _criterion(name: str, a: Sequence[Scores], b: Sequence[Scores]) -> Criterion:
    from methods.paired import compare_two

    pairs = [(one.get(name), other.get(name)) for one, other in zip(a, b, strict=True)]
    found = compare_two([one for one, _ in pairs], [other for _, other in pairs])
    common = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not common:
        return Criterion(name, None, None, None)
    return Criterion(name, fmean(one for one, _ in common), fmean(other for _, other in common), found)


def _scores(item: Mapping[str, Any]) -> Scores:
    found = {
        result["name"][:-UUID] or result["name"]: float(result["score"])
        for result in item["results"]
        if not result.get("error")
    }
    return found if item["status"] == "error" else {**found, PASSED: float(item["status"] == "pass")}


def _means(answers: Sequence[Scores]) -> Scores:
    names = dict.fromkeys(name for scores in answers for name in scores)
    return {name: fmean(scores[name] for scores in answers if name in scores) for name in names}
