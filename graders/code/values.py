"""Encodes values that a program computed, so that they can be compared on this side.

`ENCODER` is Python source that runs beside the completion; what it gives is JSON of tagged values. The
expected value never goes to where the completion runs, so an object that claims to equal everything gains
nothing.
"""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 24

ENCODER = """
def _cherry_encode(value, depth=0):
    if depth > 24:
        return ["?", "nested too deeply"]
    if value is None or isinstance(value, bool):
        return ["c", value]
    if isinstance(value, int):
        return ["i", hex(int.__index__(value))]
    if isinstance(value, float):
        return ["f", float.__repr__(value)]
    if isinstance(value, str):
        return ["s", str.__str__(value)]
    if isinstance(value, (bytes, bytearray)):
        return ["b", bytes(value).hex()]
    if isinstance(value, complex):
        return ["z", [value.real.hex(), value.imag.hex()]]
    for tag, kind in (("l", list), ("t", tuple), ("e", (set, frozenset))):
        if isinstance(value, kind):
            return [tag, [_cherry_encode(one, depth + 1) for one in value]]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return ["d", [[_cherry_encode(k, depth + 1), _cherry_encode(v, depth + 1)] for k, v in pairs]]
    if hasattr(value, "tolist"):
        return _cherry_encode(value.tolist(), depth + 1)
    if type(value).__name__ == "deque":
        return _cherry_encode(list(value), depth + 1)
    return ["?", type(value).__name__]
"""


class Undecodable:
    """Stands for a value of a kind that has no encoding; it is equal to nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind[:40]}>"


def decode(value: Any, depth: int = 0) -> Any:
    """Returns the value that the encoder encoded; `Undecodable` for anything that is not of its form."""
    match value:
        case _ if depth > MAX_DEPTH + 1:
            return Undecodable("nested too deeply")
        case ["c", None | bool()]:
            return value[1]
        case ["s", str()]:
            return value[1]
        case ["i" | "f" | "b" | "z" as tag, scalar]:
            return _scalar(tag, scalar)
        case ["l" | "t" | "e" as tag, list() as items]:
            read = [decode(one, depth + 1) for one in items]
            return read if tag == "l" else tuple(read) if tag == "t" else _set(read)
        case ["d", list() as pairs] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            keys = [decode(key, depth + 1) for key, _ in pairs]
            if not all(_is_hashable(key) for key in keys):
                return Undecodable("dict")
            return dict(zip(keys, (decode(each, depth + 1) for _, each in pairs), strict=True))
        case ["?", str() as kind]:
            return Undecodable(kind)
    return Undecodable("value")


def _scalar(tag: str, scalar: Any) -> Any:
    try:
        match tag:
            case "i":
                return int(scalar, 16)
            case "f":
                return float(scalar)
            case "b":
                return bytes.fromhex(scalar)
            case _:
                return complex(float.fromhex(scalar[0]), float.fromhex(scalar[1]))
    except (ValueError, TypeError, LookupError):
        return Undecodable("value")


def _set(items: list[Any]) -> Any:
    return frozenset(items) if all(_is_hashable(one) for one in items) else Undecodable("set")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def same(expected: Any, got: Any, tolerance: float, *, is_json: bool) -> bool:
    """Tells whether two values are equal as Python compares, floats within a relative tolerance.

    With `is_json` the expected value came from JSON, which knows neither tuples nor keys that are no text.
    """
    if isinstance(got, Undecodable):
        return False
    if _is_number(expected) and _is_number(got):
        return _same_number(expected, got, tolerance)
    sequences = (list, tuple) if is_json else (type(expected),)
    if isinstance(expected, list | tuple):
        return (
            isinstance(got, sequences)
            and len(expected) == len(got)
            and all(
                same(one, other, tolerance, is_json=is_json) for one, other in zip(expected, got, strict=True)
            )
        )
    if isinstance(expected, dict):
        return isinstance(got, dict) and _same_dict(expected, got, tolerance, is_json)
    if isinstance(expected, set | frozenset):
        return isinstance(got, frozenset) and frozenset(expected) == got
    return type(expected) is type(got) and bool(expected == got)


def _same_dict(expected: dict[Any, Any], got: dict[Any, Any], tolerance: float, is_json: bool) -> bool:
    if is_json:
        got = {key if isinstance(key, str) else str(key): value for key, value in got.items()}
    return expected.keys() == got.keys() and all(
        same(value, got[key], tolerance, is_json=is_json) for key, value in expected.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex)


def _same_number(expected: Any, got: Any, tolerance: float) -> bool:
    if expected == got:
        return True
    if isinstance(expected, int) and isinstance(got, int):
        return False
    if isinstance(expected, complex) or isinstance(got, complex):
        return bool(abs(expected - got) <= tolerance * max(abs(expected), 1e-12))
    try:
        return math.isclose(expected, got, rel_tol=tolerance) or (math.isnan(expected) and math.isnan(got))
    except OverflowError:
        return False
