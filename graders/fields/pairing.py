"""Decides which items of two lists belong together, where an item is an object or a list itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from graders.fields.compare import canonical_json
from graders.fields.matching import CollectionKind, assignment

MAX_PAIRED = 32
"""Items of each side that are compared with each other; identical ones are paired before."""


class Pair(NamedTuple):
    """Pairs an item of the answer with one of the reference, by their places, with how well they agree."""

    given: int
    wanted: int
    score: float


def paired(
    kind: CollectionKind, score: Callable[[int, int], float], given: list[Any], wanted: list[Any]
) -> list[Pair]:
    """Returns pairs, each item in one at most, whose scores sum to the most.

    In a `list` no two pairs cross.
    """
    if kind == "list":
        return _in_order(score, min(len(given), MAX_PAIRED), min(len(wanted), MAX_PAIRED))
    same = _identical(given, wanted)
    taken = {pair.given for pair in same}, {pair.wanted for pair in same}
    rows = [at for at in range(len(given)) if at not in taken[0]][:MAX_PAIRED]
    columns = [at for at in range(len(wanted)) if at not in taken[1]][:MAX_PAIRED]
    table = [[score(row, column) for column in columns] for row in rows]
    return same + [Pair(rows[i], columns[j], table[i][j]) for i, j in _assigned(table) if table[i][j] > 0]


def _assigned(table: list[list[float]]) -> list[tuple[int, int]]:
    if table and len(table) > len(table[0]):
        turned = [list(column) for column in zip(*table, strict=True)]
        return [(row, column) for column, row in assignment(turned)]
    return assignment(table)


def _identical(given: list[Any], wanted: list[Any]) -> list[Pair]:
    """Pairs items that are equal as JSON."""
    places: dict[str, list[int]] = defaultdict(list)
    for at in reversed(range(len(wanted))):
        places[canonical_json(wanted[at])].append(at)
    found = []
    for at, item in enumerate(given):
        if same := places.get(canonical_json(item)):
            found.append(Pair(at, same.pop(), 1.0))
    return found


def _in_order(score: Callable[[int, int], float], rows: int, columns: int) -> list[Pair]:
    """Returns the alignment of the largest sum, found by dynamic programming."""
    table = [[score(i, j) for j in range(columns)] for i in range(rows)]
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        for j in range(columns):
            best[i + 1][j + 1] = max(best[i][j] + table[i][j], best[i][j + 1], best[i + 1][j])
    pairs: list[Pair] = []
    i, j = rows, columns
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append(Pair(i, j, table[i][j]))
    return pairs[::-1]
