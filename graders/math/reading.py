"""Reads answers that are numbers, times of day or lists of them; all else is left to the library.

A number may be a fraction, a mixed number, a power, in scientific notation or in another base, with a unit.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from math import log10

from graders.math.units import plain_unit, read_unit
from graders.math.values import Clock, Number, Value

MAX_DIGITS = 400
"""Digits of a power that is computed here; larger ones are left to the library, which is bounded too."""

MAX_NUMBER = 500
"""Characters of one number with its unit; a longer one is left to the library, as a long power is."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_ARGUMENT = rf"(?:\{{\s*([-+]?{_DECIMAL})\s*\}}|\s*([0-9]))"
_FRACTION = rf"(?:({_DECIMAL})\s*/\s*({_DECIMAL})|\\frac\s*{_ARGUMENT}\s*{_ARGUMENT})"
_EXPONENT = r"(?:\{\s*([-+]?[0-9]{1,5})\s*\}|\(\s*([-+]?[0-9]{1,5})\s*\)|([-+]?[0-9]{1,5}))"
_PLAIN = re.compile(_DECIMAL)
_RATIO = re.compile(_FRACTION)
_MIXED = re.compile(rf"([0-9]+)(?:\s+(?=[0-9])|\s*(?=\\frac)){_FRACTION}")
_SCIENTIFIC = re.compile(
    rf"({_DECIMAL})(?:[eE]([-+]?[0-9]{{1,5}})(?![0-9a-zA-Z.])|\s*(?:\\times|\\cdot|\*|[xX])\s*10\s*\^\s*{_EXPONENT})"
)
_POWER = re.compile(rf"({_DECIMAL})\s*\^\s*{_EXPONENT}")
_PREFIXED = re.compile(r"0(?:[xX](?P<x>[0-9A-Fa-f]+)|[bB](?P<b>[01]+)|[oO](?P<o>[0-7]+))(?![0-9A-Za-z_.])")
_BASED = re.compile(
    r"(?:[(\[]|\\(?:overline|text|mathrm)\s*\{)?\s*"
    r"(?P<digits>[0-9][0-9A-Z ]*(?:\.[0-9A-Z]{1,40})?|[0-9A-Z]{2,}|[0-9][0-9a-f]*)[)\]}]?"
    r"\s*(?:_\s*|\(?(?=base))"
    r"[{(]*\s*(?:\\(?:text|mathrm)\s*\{)?\s*\(?(?:base[ -]?)?\s*\}?(?P<base>[0-9]{1,2}|[a-z]+)[\s)}]*"
)
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16, "hex": 16, "bin": 2, "oct": 8, "dec": 10,
}  # fmt: skip
_CLOCK = re.compile(
    r"(?P<hour>[01]?[0-9]|2[0-4]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?"
    r"(?:\s*(?:\\(?:text|mathrm)\s*\{)?\s*(?P<half>[aApP])\.?\s*[mM]\.?\s*\}?)?"
)
_CURRENCY = re.compile(r"((?:US)?\\?[$€£¥₹₩])\s*|\\(?:text|mathrm)\s*\{\s*([$€£])\s*\}\s*")
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(rf"\s*(?:\\text\s*\{{\s*)?({'|'.join(_SCALES)})\b(?:\s*\}})?", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent(?:age)?|pct)\s*\}|percent(?:age)?|pct)\s*")
_NAME = re.compile(r"\s*(\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?(?:\([a-zA-Z0-9]\))?)\s*=\s*(?=[^=])")
_WRAPPED = re.compile(
    r"(?:\\(?:text|mathrm|mathbf|textbf|mathit|bf|boldsymbol)\s*)?\{([^{}]*)\}|\(([^()]*)\)"
)
_LETTERS = re.compile(r"(?=.*[^\W\d_]{2})[^\d=+*^<>|&_\\]+", re.DOTALL)
_MORE = re.compile(r"\s*([^\d,;]{1,20}?)(?:\s*,|\s+and(?=\s)|\}|\b)\s*(?=[0-9])")
_SYMBOL_UNITS = ("m", "g", "s", "h", "L")
"""Units of one letter that are read right after the digits; of others, `5t` is a product."""

_WORDS = r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])"
_LOOSE = re.compile(rf"\s*(?:,\s+(?:{_WORDS})|,\s+|;|{_WORDS})\s*")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")


class Unreadable(Exception):
    """Says that a text has numbers side by side that make no value, such as `4 10/3`."""


def read_value(text: str) -> Value | None:
    """Returns the number, time or list that a tidy answer is; None if it is none of these.

    Raises `Unreadable`.
    """
    return read_one(text) or _list(text)


def read_one(text: str) -> Number | Clock | None:
    """Returns the number or time that a tidy answer is; None if it is none. Raises `Unreadable`."""
    text = text.strip()
    if len(text) > MAX_NUMBER or not any(c.isdigit() for c in text):
        return None
    if clock := _CLOCK.fullmatch(text):
        return _time(clock)
    if wrapped := _WRAPPED.fullmatch(text):
        return read_one(wrapped[1] if wrapped[1] is not None else wrapped[2])
    sign, text = _signs(text)
    currency = _CURRENCY.match(text)
    if currency is not None:
        more, text = _signs(text[currency.end() :])
        sign *= more
    found = _based(text) or _number(text)
    if found is None:
        return None
    number, end = found
    unit = read_unit((currency[1] or currency[2]).removeprefix("US").lstrip("\\")) if currency else None
    return _with_rest(replace(number, value=sign * number.value, unit=unit), text[end:])


def plain_number(text: str) -> Number:
    """Returns a number in digits, with or without a point."""
    return Number(Fraction(text), "." in text)


def read_list(text: str) -> Value | None:
    """Returns the list that a number with commas between its thousands may be too: `100,200`."""
    return tuple(map(Number, map(Fraction, text.split(",")))) if _THOUSANDS.fullmatch(text) else None


def without_name(text: str) -> tuple[str, str]:
    """Returns the name that an answer gives its value (`x` of `x = 5`), and the value."""
    named = _NAME.match(text)
    return (named[1], text[named.end() :]) if named else ("", text)


def is_name(text: str) -> bool:
    """Tells whether a text is nothing but a name such as `x_1` or `f(x)`, or empty."""
    return not text.strip() or (_NAME.match(f"{text} = 0") or text)[0] == f"{text} = "


def _time(found: re.Match[str]) -> Clock:
    hour, half = int(found["hour"]), (found["half"] or "").lower()
    if half:
        hour = hour % 12 + 12 * (half == "p")
    return Clock(3600 * hour + 60 * int(found["minute"]) + int(found["second"] or 0), half)


def _signs(text: str) -> tuple[int, str]:
    sign = 1
    while text[:1] in ("-", "+"):
        sign, text = (-sign if text[0] == "-" else sign), text[1:].lstrip()
    return sign, text


def _number(text: str) -> tuple[Number, int] | None:
    """Returns the number that a text begins with, and where it ends."""
    if found := _PREFIXED.match(text):
        base = {"x": 16, "b": 2, "o": 8}[found.lastgroup or ""]
        return Number(Fraction(int(found[found.lastgroup or 0], base))), found.end()
    if found := _MIXED.match(text):
        mixed = _mixed(found)
        return None if mixed is None else (mixed, found.end())
    if found := _SCIENTIFIC.match(text):
        power = _power(Fraction(10), next(filter(None, found.groups()[1:])))
        if power is None:
            return None
        return Number(_fraction(found[1]) * power, is_decimal=True), found.end()
    if found := _POWER.match(text):
        power = _power(_fraction(found[1]), next(filter(None, found.groups()[1:])))
        return None if power is None else (Number(power, "." in found[1]), found.end())
    if found := _RATIO.match(text):
        top, bottom = (_fraction(part) for part in found.groups() if part is not None)
        return (Number(top / bottom, "." in found[0]), found.end()) if bottom else None
    if found := _PLAIN.match(text):
        return Number(_fraction(found[0]), "." in found[0]), found.end()
    return None


def _mixed(found: re.Match[str]) -> Number | None:
    """Returns a whole number and a proper fraction as one; None for what the library reads otherwise.

    Raises `Unreadable`.
    """
    whole, top, bottom = (_fraction(part) for part in found.groups() if part is not None)
    is_proper = 0 < top < bottom and top.denominator == bottom.denominator == 1
    if not is_proper and "\\" not in found[0]:
        raise Unreadable(f"{found[0]} is no mixed number")
    return Number(whole + top / bottom) if is_proper else None


def _power(base: Fraction, exponent: str) -> Fraction | None:
    """Returns a power; None where it is too large to compute here, or none."""
    times = int(exponent)
    size = max(abs(base.numerator), base.denominator)
    if (not base and times <= 0) or abs(times) * log10(size or 1) > MAX_DIGITS:
        return None
    return base**times


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", ""))


def _based(text: str) -> tuple[Number, int] | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    base = _BASES.get(found["base"]) or (int(found["base"]) if found["base"].isdigit() else 0)
    whole, _, places = found["digits"].replace(" ", "").partition(".")
    try:
        digits = int(whole + places, base) if base > 1 else None
    except ValueError:  # a digit that the base does not have
        return None
    return None if digits is None else (Number(Fraction(digits, base ** len(places))), len(text))


def _with_rest(number: Number, rest: str) -> Number | None:
    """Returns the number with what stands after it: nothing, a percent sign, a unit, or other words.

    None where that makes it another expression.
    """
    if not rest.strip():
        return number
    if scale := _SCALE.match(rest):
        number = replace(number, value=number.value * _SCALES[scale[1].lower()], is_product=False)
        return _with_rest(number, rest[scale.end() :])
    if _PERCENT.fullmatch(rest):
        return replace(number, is_percent=True)
    if rest[0] == " " and rest.lstrip()[:1].isdigit():
        raise Unreadable("numbers side by side are no value")
    plain = plain_unit(rest)
    is_product = len(plain) == 1 and rest[0] == plain and plain.isalpha()
    unit = None if is_product and plain not in _SYMBOL_UNITS else read_unit(rest)
    if unit is not None:
        return replace(number, unit=number.unit or unit, is_product=is_product)
    if more := _MORE.match(rest):
        return _sum(number, more[1], read_part(rest[more.end() :]))
    is_worded = rest[0] == " " or rest.startswith(("\\text", "\\mathrm"))
    return number if is_worded and _LETTERS.fullmatch(plain) else None


def _sum(number: Number, name: str, more: Number | Clock | None) -> Number | None:
    """Returns the quantity that two make, as in `5 feet 3 inches`; None if they are no such parts of one."""
    unit = read_unit(name)
    if unit is None or not isinstance(more, Number) or more.unit is None:
        return None
    ratio = more.unit.ratio_to(unit)
    if ratio is None or ratio >= 1:
        return None
    return replace(
        number, value=number.value + ratio * more.value * (-1 if number.value < 0 else 1), unit=unit
    )


def _list(text: str) -> Value | None:
    """Returns the members of a list of numbers, without brackets or in braces."""
    inner = text.strip()
    for opening, closing in ((r"\{", r"\}"), ("{", "}")):
        if inner.startswith(opening) and inner.endswith(closing):
            inner = inner[len(opening) : -len(closing)]
    parts = _LOOSE.split(inner)
    found = []
    for part in parts:
        for one in [part] if read_part(part) else part.split(","):
            value = read_part(one)
            if value is None:
                return None
            found.append(value)
    return tuple(found)


def read_part(text: str) -> Number | Clock | None:
    """Returns what `read_one` does; None where that cannot read it."""
    try:
        return read_one(text)
    except Unreadable:
        return None
