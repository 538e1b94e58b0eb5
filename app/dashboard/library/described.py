"""Describes the settings of the service for a page: name, sentence, where its value is from, and never a
secret."""

from __future__ import annotations

import ast
import inspect
import os
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from app.settings import PREFIX, Settings

NAMED = (
    "broker_url",
    "database_url",
    "host",
    "report_paused_as",
    "sandbox",
    "sampler_device",
    "log_level",
    "log_format",
)
"""Settings that are text: of those whose text is one of a few words, the text is shown, of an address only
the kind of server."""
MANY = 10_000
"""Numbers from here on are written with commas."""
ADDRESSES = ("broker_url", "database_url")


class Described(NamedTuple):
    """One setting. `value` is what may be shown of it."""

    name: str
    value: str
    source: str
    meaning: str


def described(settings: Settings) -> list[Described]:
    """Returns all settings in the order of their declaration."""
    sentences = _sentences()
    return [
        Described(
            f"{PREFIX}{field.upper()}",
            _value(field, getattr(settings, field), is_set=field in settings.model_fields_set),
            _source(field, is_set=field in settings.model_fields_set),
            sentences.get(field, ""),
        )
        for field in Settings.model_fields
    ]


def _value(field: str, value: object, *, is_set: bool) -> str:
    """Returns a number, a switch or a word as it is. Of texts, tables, folders and addresses, which can hold
    secrets or tell of machines, only whether they are set."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, int | float):
        return f"{value:,}" if value >= MANY else str(value)
    if field in ADDRESSES:
        return f"{str(value).partition(':')[0]}, address hidden"
    if field in NAMED or value in ("auto", "any", "unknown"):
        return str(value)
    return "set, hidden" if is_set else "as by default"


def _source(field: str, *, is_set: bool) -> str:
    if not is_set:
        return "default"
    names = (f"{PREFIX}{field.upper()}", field.upper())
    return "environment" if any(name in os.environ for name in names) else ".env or the start"


@lru_cache
def _sentences() -> dict[str, str]:
    """Returns what stands below each field in the class."""
    (body,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found
