"""Counts how many items of two lists agree: the matched weight behind precision, recall and F1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from rapidfuzz.distance import LCSseq

from graders.fields.compare import (
    equality_key,
    folded,
    number_bounds,
    reference_key,
    reference_number,
    reference_text,
    text_ratio,
)
from graders.fields.numbers import read_number
from graders.fields.spec import BooleanRule, DateRule, FuzzyRule, NumberRule, ScalarRule, TextRule

MAX_ASSIGNED = 64
"""Items of each side in the optimal assignment of `fuzzy` items; of more, identical ones go first."""

MAX_CELLS = 250_000
"""Comparisons in one ordered alignment; items of the answer beyond that count as wrong."""

CollectionKind = Literal["set", "multiset", "list"]


class Overlap(NamedTuple):
    """Holds the matched weight (the sum of the matched items' scores), and the items it is out of.

    Items of the answer beyond the matched weight count `extra` each.
    """

    matched: float
    n_answered: int
    wanted: int
    extra: float = 1.0

    @property
    def answered(self) -> float:
        """Returns the weight of the answer's items: matched ones count their score, others `extra` each."""
        return self.matched + self.extra * (self.n_answered - self.matched)

    @property
    def precision(self) -> float:
        """Returns the matched share of the answer, 0 to 1.

        Of an empty answer it is 1 if nothing is wanted, else 0.
        """
        return self.matched / self.answered if self.answered else float(not self.wanted)

    @property
    def recall(self) -> float:
        """Returns the matched share of the reference, 0 to 1.

        Of an empty reference it is 1 if nothing is answered, else 0.
        """
        return self.matched / self.wanted if self.wanted else float(not self.answered)

    @property
    def f1(self) -> float:
        """Returns the harmonic mean of precision and recall, 0 to 1.

        It is 1 if both lists are empty, and 0 if one is.
        """
        items = self.answered + self.wanted
        return 2 * self.matched / items if items else 1.0


def overlap(
    kind: CollectionKind, rule: ScalarRule, answer: list[Any], reference: list[Any], at: str
) -> Overlap:
    """Matches each item at most once.

    In a `set` repeats in the reference are dropped, and repeats in the answer are wrong items unless the
    reference repeats them too. In a `list` the matches must keep their order. Raises `GradeFailed` if an
    item of the reference is not what the rule compares.
    """
    match rule:
        case TextRule() | DateRule() | BooleanRule():
            wanted: list[Any] = [reference_key(rule, item, at) for item in reference]
            given: list[Any] = [key for item in answer if (key := equality_key(rule, item)) is not None]
        case NumberRule():
            wanted = [reference_number(rule, item, at) for item in reference]
            given = [number for item in answer if (number := read_number(item, rule)) is not None]
        case FuzzyRule():
            wanted = [reference_text(rule, item, at) for item in reference]
            given = [text for item in answer if (text := folded(rule, item)) is not None]
    repeats = 0
    if kind == "set":
        repeats = _shared_repeats(given, wanted)
        given, wanted = list(dict.fromkeys(given)), list(dict.fromkeys(wanted))
    matched = _in_order(rule, given, wanted) if kind == "list" else _in_any_order(rule, given, wanted)
    return Overlap(matched, len(answer) - repeats, len(wanted))


def _shared_repeats(given: list[Any], wanted: list[Any]) -> int:
    """Counts items of the answer that are repeats the reference has as well: neither right nor wrong."""
    return (_repeats(given) & _repeats(wanted)).total()


def _repeats(keys: list[Any]) -> Counter[Any]:
    return Counter(keys) - Counter(set(keys))


def _in_any_order(rule: ScalarRule, given: list[Any], wanted: list[Any]) -> float:
    match rule:
        case NumberRule():
            return _numbers_matched(rule, given, wanted)
        case FuzzyRule():
            return _texts_matched(rule, given, wanted)
        case _:
            return float((Counter(given) & Counter(wanted)).total())


def _in_order(rule: ScalarRule, given: list[Any], wanted: list[Any]) -> float:
    match rule:
        case NumberRule():
            bounds = [number_bounds(rule, number) for number in wanted]
            return _aligned(given, wanted, lambda i, j: float(bounds[j][0] <= given[i] <= bounds[j][1]))
        case FuzzyRule():
            return _aligned(given, wanted, lambda i, j: text_ratio(given[i], wanted[j], rule))
        case _:
            numbers: dict[Hashable, int] = {}
            left, right = (
                [numbers.setdefault(key, len(numbers)) for key in keys] for keys in (given, wanted)
            )
            return float(LCSseq.similarity(left, right))


def _numbers_matched(rule: NumberRule, given: list[float], wanted: list[float]) -> float:
    """Returns the most pairs within tolerance, found by a sorted sweep.

    Both ends of the tolerance grow with the number.
    """
    bounds = sorted(number_bounds(rule, number) for number in wanted)
    numbers = sorted(given)
    i = j = matched = 0
    while i < len(numbers) and j < len(bounds):
        if numbers[i] < bounds[j][0]:
            i += 1
        elif numbers[i] > bounds[j][1]:
            j += 1
        else:
            i, j, matched = i + 1, j + 1, matched + 1
    return float(matched)


def _texts_matched(rule: FuzzyRule, given: list[str], wanted: list[str]) -> float:
    """Pairs texts so that their ratios sum to the most."""
    same = surely_paired(given, wanted, MAX_ASSIGNED)
    left = left_over(given, (one for one, _ in same), MAX_ASSIGNED)
    right = left_over(wanted, (other for _, other in same), MAX_ASSIGNED)
    ratios = [[text_ratio(given[i], wanted[j], rule) for j in right] for i in left]
    return len(same) + sum(ratios[row][column] for row, column in assignment(ratios))


def surely_paired(given: Sequence[Hashable], wanted: Sequence[Hashable], most: int) -> list[tuple[int, int]]:
    """Returns the places of identical items that need no assignment.

    Those are all of them where each item of the shorter list has its like, since no pairs can be worth more.
    Else an item may be worth more beside another: only as many are paired as leave `most` of each list.
    """
    places: dict[Hashable, list[int]] = defaultdict(list)
    for at in reversed(range(len(wanted))):
        places[wanted[at]].append(at)
    same = [(at, places[item].pop()) for at, item in enumerate(given) if places.get(item)]
    if len(same) == min(len(given), len(wanted)):
        return same
    return same[: max(0, len(given) - most, len(wanted) - most)]


def left_over(items: Sequence[Any], taken: Iterable[int], most: int) -> list[int]:
    """Returns the places of the first items that are not taken, at most so many."""
    gone = set(taken)
    return [at for at in range(len(items)) if at not in gone][:most]


def best_assignment(scores: Sequence[Sequence[float]]) -> float:
    """Returns the largest sum with at most one score from each row and column."""
    return sum(scores[row][column] for row, column in assignment(scores))


def assignment(scores: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Returns the pairs (row, column) behind `best_assignment`.

    It is the Hungarian method with potentials (Kuhn 1955, in Jonker and Volgenant's form): O(rows^2 *
    columns).
    """
    if scores and len(scores) > len(scores[0]):
        return [(row, column) for column, row in assignment(list(zip(*scores, strict=True)))]
    rows = len(scores)
    columns = len(scores[0]) if rows else 0
    row_potential = [0.0] * (rows + 1)
    column_potential = [0.0] * (columns + 1)
    row_of = [0] * (columns + 1)  # row assigned to each column; 0 is free, column 0 is the one being placed
    for row in range(1, rows + 1):
        row_of[0] = row
        column = 0
        slack = [float("inf")] * (columns + 1)
        came_from = [0] * (columns + 1)
        used = [False] * (columns + 1)
        while row_of[column]:
            used[column] = True
            current = row_of[column]
            nearest = 0
            step = float("inf")
            for other in range(1, columns + 1):
                if used[other]:
                    continue
                cost = -scores[current - 1][other - 1] - row_potential[current] - column_potential[other]
                if cost < slack[other]:
                    slack[other], came_from[other] = cost, column
                if slack[other] < step:
                    step, nearest = slack[other], other
            for other in range(columns + 1):
                if used[other]:
                    row_potential[row_of[other]] += step
                    column_potential[other] -= step
                else:
                    slack[other] -= step
            column = nearest
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return [(row - 1, column - 1) for column, row in enumerate(row_of) if column and row]


def _aligned(given: list[Any], wanted: list[Any], score: Callable[[int, int], float]) -> float:
    """Returns the largest sum of scores over pairs that cross nowhere."""
    start = 0
    while start < min(len(given), len(wanted)) and given[start] == wanted[start]:
        start += 1
    columns = range(start, len(wanted))
    rows = range(start, min(len(given), start + MAX_CELLS // max(1, len(columns))))
    best = [0.0] * (len(columns) + 1)
    for i in rows:
        above_left = 0.0
        for at, j in enumerate(columns, start=1):
            above = best[at]
            best[at] = max(above, best[at - 1], above_left + score(i, j))
            above_left = above
    return start + best[-1]
