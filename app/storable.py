"""Cleans what a run tells, so that Postgres can hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def clean(text: str) -> str:
    """Returns text that Postgres takes: no NUL, no half of a surrogate pair."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def storable(value: Any) -> Any:
    """Returns the same JSON value as Postgres takes it: numbers finite (else null), text clean."""
    if isinstance(value, Mapping):
        return {clean(str(key)): storable(part) for key, part in value.items()}
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Sequence):
        return [storable(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
