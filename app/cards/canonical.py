"""Writes JSON in its one canonical form (RFC 8785), so that equal values have equal bytes and hashes.

Keys are in the order of their UTF-16 code units, nothing is between tokens, text is UTF-8, and a number is
written as JavaScript writes it: 1.0 and 1 are the same, and so are 0 and -0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

PLAIN_FROM, PLAIN_BELOW = 1e-6, 1e21
"""Sizes between which a number has no exponent (ECMA-262, Number::toString)."""

_ENCODE_TEXT = json.JSONEncoder(ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """Returns the canonical form of a JSON value. Raises `ValueError` for what JSON cannot hold."""
    return _written(value).encode("utf-8")


def digest(value: Any) -> str:
    """Returns the SHA-256 of a value's canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of rows: of each one's canonical form and a line feed.

    Files that hold the same rows have the same, however their lines were written.
    """
    found = hashlib.sha256()
    for row in rows:
        found.update(canonical(row) + b"\n")
    return found.hexdigest()


def _written(value: Any) -> str:
    if isinstance(value, str):
        return _ENCODE_TEXT(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        ordered = sorted(value.items(), key=_utf16)
        return "{" + ",".join(f"{_ENCODE_TEXT(key)}:{_written(each)}" for key, each in ordered) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    raise ValueError(f"JSON has no {type(value).__name__}.")


def _utf16(pair: tuple[str, Any]) -> bytes:
    return pair[0].encode("utf-16-be")


def _number(value: float) -> str:
    """Returns the fewest digits that are this number, in ECMAScript's form."""
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value}.")
    if value == 0:
        return "0"
    if PLAIN_FROM <= abs(value) < PLAIN_BELOW:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    digits, _, exponent = repr(value).partition("e")
    return f"{digits}e{int(exponent):+d}"
