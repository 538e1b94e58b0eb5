"""Decides which items of two lists belong together, where an item is an object or a list itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from graders.fields.compare import canonical_json
from graders.fields.matching import CollectionKind, assignment, left_over, surely_paired

MAX_PAIRED = 32
"""Items of each side that are compared with each other; of more, identical ones go first."""


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
    texts, wanted_texts = list(map(canonical_json, given)), list(map(canonical_json, wanted))
    if kind == "list":
        return _aligned(score, texts, wanted_texts)
    same = surely_paired(texts, wanted_texts, MAX_PAIRED)
    rows = left_over(given, (one for one, _ in same), MAX_PAIRED)
    columns = left_over(wanted, (other for _, other in same), MAX_PAIRED)
    table = [[score(row, column) for column in columns] for row in rows]
    assigned = [Pair(rows[i], columns[j], table[i][j]) for i, j in assignment(table) if table[i][j] > 0]
    return [Pair(*places, 1.0) for places in same] + assigned


def _aligned(score: Callable[[int, int], float], texts: list[str], wanted_texts: list[str]) -> list[Pair]:
    """Returns the alignment of the largest sum: what both begin with, then the best of the rest.

    An item that equals the first one wanted is worth the most beside it, wherever it could stand else.
    """
    shorter = min(len(texts), len(wanted_texts))
    start = next((at for at in range(shorter) if texts[at] != wanted_texts[at]), shorter)
    rest = _in_order(
        lambda i, j: score(start + i, start + j),
        min(len(texts) - start, MAX_PAIRED),
        min(len(wanted_texts) - start, MAX_PAIRED),
    )
    return [Pair(at, at, 1.0) for at in range(start)] + [
        Pair(start + pair.given, start + pair.wanted, pair.score) for pair in rest
    ]


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
