"""What Postgres can hold of texts and JSON, and how JSON comes back from it as it was."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_LONG = re.compile(r"[0-9]{19}")
"""A number that 64 bits may not hold."""
_BEYOND = 2**63


def read_back(text: str | bytes) -> Any:
    """Returns a JSON value that was kept: jsonb writes out what was 1e30, which becomes a float again.

    No integer beyond 64 bits gets there: bodies and files that hold one are refused.
    """
    text = text if isinstance(text, str) else text.decode()
    return json.loads(text, parse_int=_number) if _LONG.search(text) else json.loads(text)


def _number(digits: str) -> int | float:
    number = int(digits)
    return number if -_BEYOND <= number < _BEYOND else float(digits)


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
