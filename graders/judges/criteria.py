"""Reads the criteria of a rubric: what a grader lists itself, and what published rows hold.

Rows are taken in the forms in which rubrics are published: HealthBench's (criterion, points, tags),
open-instruct's (an object of query and rubrics with description and weight), and that of "rubrics as rewards"
(arXiv 2507.17746: title, description, weight).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders import strict_json
from graders.judges.reply import number
from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed

MAX_CRITERIA = 100
"""Criteria of one rubric. Twice what HealthBench's longest row has (48)."""
MAX_CRITERION = 16 * 1024
"""Longest criterion, in characters. Chosen, not measured; published ones have a few hundred."""
MAX_POINTS = 1_000_000
MAX_TAGS = 32
MAX_NAME = 48
"""Longest name of a criterion's curve, in characters, so that it fits the head of a column."""

TEXTS = ("criterion", "description", "rubric_item", "Ingredient")
"""Where published rubrics hold the text of a criterion."""
POINTS = ("points", "weight")
QUERIES = ("query", "Question", "question")
_WORDS = re.compile(r"[^\W_]+")
_CATEGORY = re.compile(r"(essential|important|optional|pitfall) criteria\s*:", re.IGNORECASE)
"""How rows of "rubrics as rewards" say of what kind a criterion is."""


@dataclass(frozen=True)
class Criterion:
    """States something that an answer may do, and how many points it is worth: below 0, of a fault.

    Attributes:
        name: its own curve, of one that the grader lists; "" of a row's, which another row does not have.
        tags: curves that it shares with others.
    """

    text: str
    points: float
    name: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rubric:
    """Holds the criteria of a row, and the query that they are about where the rubric itself has it."""

    criteria: tuple[Criterion, ...]
    query: str = ""


def read_rubric(value: Any) -> Rubric:
    """Returns the rubric that a row holds, in any of the published forms, or as JSON text of one.

    Raises `GradeFailed` (invalid_variable_error) for what is none.
    """
    if isinstance(value, str):
        try:
            value = strict_json.loads(value.strip())
        except StrictJsonError as error:
            raise unreadable(f"is text that is not JSON ({error})") from None
    query = ""
    if isinstance(value, Mapping):
        query = next((value[key] for key in QUERIES if isinstance(value.get(key), str)), "")
        value = next((value[key] for key in ("rubrics", "rubric") if key in value), None)
    if not isinstance(value, list):
        raise unreadable("is no list of criteria")
    if not 1 <= len(value) <= MAX_CRITERIA:
        raise unreadable(f"has {len(value)} criteria; it must have 1 to {MAX_CRITERIA}")
    criteria = tuple(_criterion(one, place) for place, one in enumerate(value, start=1))
    if not has_points(criteria):
        raise unreadable("has no criterion with points above 0, so that nothing could be reached")
    return Rubric(criteria, query)


def has_points(criteria: Iterable[Criterion]) -> bool:
    """Tells whether there are points to reach."""
    return any(criterion.points > 0 for criterion in criteria)


def unreadable(why: str) -> GradeFailed:
    """Returns the failure for a rubric that cannot be used. `why` goes on "The row's rubric ..."."""
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's rubric {why}.")


def names_of(texts: Sequence[str], given: Sequence[str | None], taken: Iterable[str]) -> list[str]:
    """Returns a short name for each criterion that a grader lists: the given one, or one out of its words.

    Names are stable while the texts are. Of two alike the second has a number.
    """
    used = {*taken, *(name for name in given if name)}
    names = []
    for place, (text, name) in enumerate(zip(texts, given, strict=True), start=1):
        made = name or _free(_slug(text) or f"criterion-{place}", used)
        used.add(made)
        names.append(made)
    return names


def _criterion(raw: Any, place: int) -> Criterion:
    if not isinstance(raw, Mapping):
        raise unreadable(f"has as criterion {place} no object")
    text = next((raw[key] for key in TEXTS if isinstance(raw.get(key), str)), "").strip()
    if not text:
        raise unreadable(f"has no text in criterion {place} (its '{TEXTS[0]}' or '{TEXTS[1]}')")
    if len(text) > MAX_CRITERION:
        raise unreadable(f"has more than {MAX_CRITERION:,} characters in criterion {place}")
    key = next((key for key in POINTS if key in raw), None)
    points = 1.0 if key is None else number(raw[key])  # open-instruct's weight, where a criterion has none
    if points is None or abs(points) > MAX_POINTS:
        raise unreadable(
            f"has as '{key}' of criterion {place} no number from -{MAX_POINTS:,} to {MAX_POINTS:,}"
        )
    return Criterion(text, points, tags=_tags(raw, text, place))


def _tags(raw: Mapping[str, Any], text: str, place: int) -> tuple[str, ...]:
    tags = raw.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise unreadable(f"has as 'tags' of criterion {place} no list of texts")
    if len(tags) > MAX_TAGS:
        raise unreadable(f"has more than {MAX_TAGS} tags in criterion {place}")
    category = _CATEGORY.match(text)
    return tuple(dict.fromkeys([*tags, *([category[1].lower()] if category else [])]))


def _slug(text: str) -> str:
    """Returns the first words of a text, as many as a name may have."""
    words = _WORDS.findall(text.casefold())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word[:MAX_NAME]
        if len(longer) > MAX_NAME:
            break
        name = longer
    return name


def _free(name: str, used: set[str]) -> str:
    number_ = 2
    free = name
    while free in used:
        free, number_ = f"{name}-{number_}", number_ + 1
    return free
