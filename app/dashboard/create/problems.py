"""Sorts what is wrong with a request to the fields that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.dashboard.create.fields import Field
from app.errors import ApiError, BadRequest
from app.validation_errors import describe_all

GRADER, FORMAT, MORE, TOP = "grader", "response_format", "more", ""
PLACES = ("model", "training_file", "validation_file", "suffix", "seed")
OF_GRADER = "method.reinforcement.grader"
OF_FORMAT = "method.reinforcement.response_format"
NUMBER = re.compile(r"(?:method\.[a-z]+\.)?hyperparameters\.(\w+)")
MISSING = {
    "model": "Choose the model that is trained.",
    "training_file": "Choose a training file, or upload one.",
}


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        place: the field: its name, `hp/` and the name of a hyperparameter, or `grader` and the path in it.
        message: a sentence.
    """

    place: str
    message: str

    @property
    def anchor(self) -> str:
        """Returns the id of the field in the page; "" for none."""
        if self.place.startswith(GRADER):
            return "grader"
        return {"method": "method-reinforcement", FORMAT: "format"}.get(self.place, self.place)


def of_validation(problem: ValidationError) -> list[ApiError]:
    """Returns what pydantic has found in a body, in the words of the API."""
    errors: list[Any] = [{**error, "loc": ("body", *error["loc"])} for error in problem.errors()]
    return [BadRequest(one.message, param=one.param, code=one.code) for one in describe_all(errors)]


def placed(refusals: Iterable[ApiError], grader: Field | None) -> list[Problem]:
    """Returns each refusal once, with the field that it belongs to."""
    paths = set(_paths(grader)) if grader else set()
    found = [Problem(place_of(one.param, paths), sentence_of(one)) for one in refusals]
    return list(dict.fromkeys(found))


def sentence_of(refusal: ApiError) -> str:
    """Returns what is wrong in the words of the page: a field is named as it is there."""
    param = refusal.param or ""
    if refusal.code == "missing_required_parameter" and param in MISSING:
        return MISSING[param]
    short = param.removeprefix(f"{OF_GRADER}.").rpartition("hyperparameters.")[2]
    return refusal.message.replace(f"'{param}'", f"'{short}'") if param else refusal.message


def by_path(problems: Iterable[Problem]) -> dict[str, list[str]]:
    """Returns the messages about the grader by the path in it; those about the whole under ""."""
    found: dict[str, list[str]] = {}
    for place, message in problems:
        if place == GRADER or place.startswith(f"{GRADER} "):
            found.setdefault(place.removeprefix(GRADER).strip(), []).append(message)
    return found


def place_of(param: str | None, paths: set[str]) -> str:
    """Returns the field of a request's parameter; `paths` are those that the grader's form has fields for."""
    if param is None:
        return TOP
    if param in PLACES:
        return param
    if param in ("method", "method.type"):
        return "method"
    if found := NUMBER.match(param):
        return f"hp/{found[1]}"
    if param.startswith(OF_FORMAT):
        return FORMAT
    if param.startswith(OF_GRADER):
        return _nearest(param.removeprefix(OF_GRADER).removeprefix("."), paths)
    return MORE


def _nearest(path: str, paths: set[str]) -> str:
    """Returns the field of a path in the grader, or of the nearest place above it that has one."""
    while path:
        if path in paths:
            return f"{GRADER} {path}"
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return GRADER


def _paths(field: Field) -> Iterator[str]:
    if field.path:
        yield field.path
    for part in (*field.parts, *field.more):
        yield from _paths(part)
