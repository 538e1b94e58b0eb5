"""Reads strict JSON: what this accepts, UTF-8 output and a Postgres jsonb column accept too.

The standard decoder with hooks. Costs about a third more time than `json.loads`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import accumulate, repeat
from typing import Any

MAX_DEPTH = 64
"""How deep arrays and objects may be nested."""

LONGEST_PATH = 500
"""Most characters of a path that is told. Chosen, not measured."""

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_NOT_A_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[^\[\]{}"]++', re.DOTALL)
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*+\\u0000")
_WHITE_SPACE = " \t\n\r"
_LONGEST_INT = len(str(INT_MIN))


class StrictJsonError(ValueError):
    """Says why a text is not strict JSON.

    `line` and `column` count from 1; they are None where the place is not known.
    """

    def __init__(self, message: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message if line is None else f"{message} (line {line}, column {column})")
        self.message = message
        self.line = line
        self.column = column


class NotANumber(StrictJsonError):
    """Says of a value that it stands for a number, and is none that JSON and 64 bits have."""


def loads(
    text: str | bytes | bytearray, *, max_depth: int = MAX_DEPTH, takes_any_character: bool = False
) -> Any:
    """Parses one JSON document.

    It refuses, beside malformed text: NaN and infinities, floats that overflow, integers beyond signed 64
    bits, duplicate keys, nesting beyond `max_depth`, invalid UTF-8, a byte order mark, NUL, lone surrogates.
    `takes_any_character` lets the last two pass where they are escaped, for a caller who replaces them.
    Raises `StrictJsonError`, and nothing else, for any text.
    """
    document = _as_text(text)
    _check_depth(document, max_depth)
    try:
        value = _decoded(document)
    except json.JSONDecodeError as error:
        raise StrictJsonError(error.msg, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise StrictJsonError("nested too deeply") from None
    if "\\u" in document and not takes_any_character:
        _check_escapes(document, value)
    return value


def path_of_no_number(text: str | bytes | bytearray) -> str | None:
    """Returns where in a document that was refused with `NotANumber` the first such value is: `a.b[2]`.

    None where the document has another fault behind it, where it is that value alone, and where the keys on
    the way cannot be shown.
    """
    no_number = object()

    def unless(read: Callable[[str], Any]) -> Callable[[str], Any]:
        def value(digits: str) -> Any:
            try:
                return read(digits)
            except NotANumber:
                return no_number

        return value

    decoder = json.JSONDecoder(
        parse_int=unless(_int), parse_float=unless(_float), parse_constant=unless(_constant)
    )
    try:
        document = decoder.decode(_as_text(text))
    except ValueError:
        return None
    found = next((path for path, value in _leaves(document, "") if value is no_number), "")
    is_sayable = 0 < len(found) <= LONGEST_PATH and found.isprintable()
    return found if is_sayable else None


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields the path and the value of everything that holds nothing else."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def _decoded(document: str) -> Any:
    """Does what the decoder does, which looks for white space first; hardly a line has any."""
    try:
        value, end = _DECODER.scan_once(document, 0)  # type: ignore[attr-defined] # typeshed lacks it
    except StopIteration:  # white space, or no JSON
        return _DECODER.decode(document)
    if end == len(document) or not document[end:].strip(_WHITE_SPACE):
        return value
    return _DECODER.decode(document)  # says what is wrong behind the value


def _as_text(text: str | bytes | bytearray) -> str:
    """Returns the document as text that has a UTF-8 form."""
    try:
        if isinstance(text, str):
            if not text.isascii():
                text.encode("utf-8")
            return text
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"invalid UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError as error:
        raise StrictJsonError(f"lone surrogate at character {error.start}") from None


def _check_depth(document: str, max_depth: int) -> None:
    """Refuses deep nesting before the decoder recurses into it."""
    if document.count("[") + document.count("{") <= max_depth:
        return
    brackets = _NOT_A_BRACKET.sub("", document)
    if max(accumulate(map(_STEP.get, brackets, repeat(0))), default=0) > max_depth:
        raise StrictJsonError(f"nested more than {max_depth} levels deep")


def _check_escapes(document: str, value: Any) -> None:
    """Refuses NUL and lone surrogates, which in a valid document can only come from escapes."""
    if _ESCAPED_NUL.search(document):
        raise StrictJsonError("a string holds the NUL character (\\u0000)")
    if "\\ud" in document or "\\uD" in document:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise StrictJsonError("a string holds half of a surrogate pair") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise StrictJsonError(f"duplicate key {twice[:60]!r}")
    return found


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_INT or not INT_MIN <= (number := int(digits)) <= INT_MAX:
        raise NotANumber(f"integer beyond 64 bits: {digits[:30]}")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotANumber(f"number out of range: {digits[:30]}")
    return number


def _constant(name: str) -> float:
    raise NotANumber(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
)
