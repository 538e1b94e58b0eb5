"""Writes Python values as texts and reads them again, on both sides of a sandbox's wall.

Loaded on both sides: standard library only. What an untrusted program gives is a list of such texts, from
which only values of built-in kinds are ever made: no object of the program's own, with its own idea of
equality, reaches the side that compares.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import importlib
from collections import Counter, deque, namedtuple
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AnySet
from typing import Any

MAX_DEPTH = 200
"""Values nested deeper are opaque: Python's own recursion ends at 1,000 calls."""

Keep = Callable[[Any], str]
"""Returns what stands for a value that has no text of its own."""

_PLAIN_DATES = (datetime.datetime, datetime.date, datetime.time)
_DATES = {kind.__name__: kind for kind in _PLAIN_DATES}
_BUILT_IN: tuple[type, ...] = (bool, int, float, complex, str, bytes, list, tuple, set, dict)
_TYPES = {kind.__name__: kind for kind in _BUILT_IN}
_NAMED = {None: "N", True: "T", False: "F"}


class Unreadable(Exception):
    """Says that texts are not those of a value."""


class Opaque:
    """Stands for a value that has no text; it is equal to nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind[:40]}>"


def opaque(value: Any) -> str:
    """Returns the text for a value of which only its kind can be told."""
    return f"o{type(value).__name__}"


def encode(value: Any, keep: Keep = opaque) -> list[str]:
    """Returns the texts of a value: its own, then those of what it holds."""
    out: list[str] = []
    _encode(value, out, keep, 0)
    return out


def _encode(value: Any, out: list[str], keep: Keep, depth: int) -> None:
    if value is None or value is True or value is False:
        out.append(_NAMED[value])
    elif depth > MAX_DEPTH:
        out.append(keep(value))
    elif (text := _scalar_text(value)) is not None:
        out.append(text)
    elif (parts := _parts(value)) is not None:
        tag, held = parts
        out.append(tag)
        for one in held:
            _encode(one, out, keep, depth + 1)
    else:
        out.append(keep(value))


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, int):
        return f"i{int.__index__(value):x}"
    if isinstance(value, float):
        return "f" + float.__repr__(value)
    if isinstance(value, str):
        return _string_text(str.__str__(value))
    if isinstance(value, bytes | bytearray):
        return ("b" if isinstance(value, bytes) else "B") + bytes(value).hex()
    if isinstance(value, complex):
        return f"z{value.real!r} {value.imag!r}"
    if isinstance(value, fractions.Fraction):
        return f"q{value.numerator:x} {value.denominator:x}"
    if isinstance(value, decimal.Decimal):
        return f"D{decimal.Decimal.__str__(value)}"
    if isinstance(value, range):
        return f"R{value.start:x} {value.stop:x} {value.step:x}"
    return _rare_text(value)


def _rare_text(value: Any) -> str | None:
    if isinstance(value, datetime.timedelta):
        return f"w{value.days:x} {value.seconds:x} {value.microseconds:x}"
    if type(value) in _PLAIN_DATES:
        return f"c{type(value).__name__} {value.isoformat()}"
    if isinstance(value, type) and value in _BUILT_IN:
        return f"k{value.__name__}"
    return None


def _string_text(value: str) -> str:
    """Returns the text of a string; one that JSON here would refuse goes as numbers."""
    has_half_pair = not value.isascii() and any("\ud800" <= one <= "\udfff" for one in value)
    if "\0" in value or has_half_pair:
        return "u" + value.encode("utf-16-le", "surrogatepass").hex()
    return "s" + value


def _parts(value: Any) -> tuple[str, Sequence[Any]] | None:
    if isinstance(value, list):
        held = list(list.__iter__(value))
        return f"l{len(held)}", held
    if isinstance(value, tuple):
        held = list(tuple.__iter__(value))
        names = getattr(type(value), "_fields", None)
        if (
            isinstance(names, tuple)
            and len(names) == len(held)
            and all(isinstance(one, str) for one in names)
        ):
            return " ".join(("m" + type(value).__name__, *names)), held
        return f"t{len(held)}", held
    if isinstance(value, dict):
        pairs = [one for pair in dict.items(value) for one in pair]
        return f"{'C' if isinstance(value, Counter) else 'd'}{len(pairs)}", pairs
    if isinstance(value, set | frozenset | AnySet):
        held = list(value)
        return f"{'E' if isinstance(value, frozenset) else 'e'}{len(held)}", held
    if isinstance(value, deque):
        held = list(deque.__iter__(value))
        return f"Q{len(held)}", held
    return _array_parts(value)


def _array_parts(value: Any) -> tuple[str, Sequence[Any]] | None:
    """Returns the parts of what numpy, pandas and `array` have: whatever becomes a list."""
    if type(value).__module__.partition(".")[0] not in ("numpy", "pandas", "array"):
        return None
    if not callable(getattr(value, "tolist", None)):
        return None
    listed = value.tolist()
    if type(value).__name__ == "ndarray" and isinstance(listed, list):
        return f"a{value.dtype.str}", [listed]
    return "v", [listed]


def decode(texts: Sequence[Any], refer: Callable[[str], Any] | None = None, *, is_rich: bool = False) -> Any:
    """Returns the value that texts are of. Raises `Unreadable`.

    Args:
        texts: what `encode` gave, or something that claims to be.
        refer: returns what an opaque text or a reference stands for; `Opaque` without it.
        is_rich: whether arrays and named tuples are made again, and not lists and tuples.
    """
    reading = iter(texts)
    try:
        value = _Decoder(reading, refer or (lambda text: Opaque(text[1:])), is_rich).value(0)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError) as fault:
        raise Unreadable(str(fault)[:100]) from None
    except StopIteration:
        raise Unreadable("it is cut off") from None
    if next(reading, None) is not None:
        raise Unreadable("there is more behind it")
    return value


class _Decoder:
    """Reads one value after the other from texts."""

    def __init__(self, texts: Iterator[Any], refer: Callable[[str], Any], is_rich: bool) -> None:
        self._texts = texts
        self._refer = refer
        self._is_rich = is_rich

    def value(self, depth: int) -> Any:
        """Returns the next value."""
        text = next(self._texts)
        if not isinstance(text, str) or depth > MAX_DEPTH + 1:
            raise ValueError("it is no text of a value")
        if text in ("N", "T", "F"):
            return None if text == "N" else text == "T"
        tag, rest = text[:1], text[1:]
        if tag in "ltedCEQ":
            return self._holding(tag, [self.value(depth + 1) for _ in range(_count(rest))])
        if tag == "m":
            name, *fields = rest.split(" ")
            held = [self.value(depth + 1) for _ in fields]
            return namedtuple(name, fields)(*held) if self._is_rich else tuple(held)
        if tag in "av":
            return self._array(tag, rest, self.value(depth + 1))
        return self._refer(text) if tag in "or#g" else _scalar(tag, rest)

    def _holding(self, tag: str, held: list[Any]) -> Any:
        match tag:
            case "t":
                return tuple(held)
            case "e":
                return set(held)
            case "E":
                return frozenset(held)
            case "d" | "C":
                pairs = dict(zip(held[::2], held[1::2], strict=True))
                return pairs if tag == "d" else Counter(pairs)
            case "Q":
                return deque(held)
        return held

    def _array(self, tag: str, kind: str, listed: Any) -> Any:
        if tag == "v" or not self._is_rich or "O" in kind:
            return listed
        return importlib.import_module("numpy").array(listed, dtype=kind)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("it holds no number of things")
    return int(text)


def _scalar(tag: str, text: str) -> Any:
    match tag:
        case "i":
            return int(text, 16)
        case "f":
            return float(text)
        case "s":
            return text
        case "u":
            return bytes.fromhex(text).decode("utf-16-le", "surrogatepass")
        case "b":
            return bytes.fromhex(text)
        case "B":
            return bytearray.fromhex(text)
        case "D":
            return decimal.Decimal(text)
        case "k":
            return _TYPES[text]
    return _joined(tag, text.split(" "))


def _joined(tag: str, words: list[str]) -> Any:
    match tag:
        case "z":
            return complex(float(words[0]), float(words[1]))
        case "q":
            return fractions.Fraction(int(words[0], 16), int(words[1], 16))
        case "R":
            return range(*(int(word, 16) for word in words))
        case "w":
            return datetime.timedelta(*(int(word, 16) for word in words))
        case "c":
            return _DATES[words[0]].fromisoformat(words[1])
    raise ValueError("it is of no known kind")
