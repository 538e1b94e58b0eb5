"""Reads numbers out of JSON values: digits with separators, units, currencies, percent."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from graders.fields.spec import NumberRule
from graders.fields.units import converted, find_unit
from graders.minus import plain_minus

MAX_NUMBER = 80
"""Characters of a text that may be a number."""
CACHED_NUMBERS = 4096
"""Numbers that stay converted: the completions of a group often say the same, and have one reference."""

_POWER = "(?:[eE][-+]?[0-9]{1,3})?"
_SPACE = "'\u2019 \u00a0\u2009\u202f"
_POINT = re.compile(
    rf"[-+]?(?:(?:[0-9]{{1,3}}(?:[,{_SPACE}][0-9]{{3}})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+){_POWER}"
)
_COMMA = re.compile(
    rf"[-+]?(?:(?:[0-9]{{1,3}}(?:[.{_SPACE}][0-9]{{3}})+|[0-9]+)(?:,[0-9]*)?|,[0-9]+){_POWER}"
)
_SEPARATORS = re.compile(r"[,'\u2019 \u00a0\u2009\u202f]")
_WHOLE = re.compile(r"[-+]?[0-9]{1,60}")

_SIGNS = """
$ USD US$ USD A$ AUD C$ CAD S$ SGD HK$ HKD R$ BRL € EUR £ GBP ¥ JPY ₹ INR Rs INR Rs. INR ₩ KRW ₽ RUB
₺ TRY ₫ VND ฿ THB ₴ UAH ₪ ILS ₱ PHP zł PLN Kč CZK kr SEK RM MYR
"""
SYMBOLS = dict(zip(_SIGNS.split()[::2], _SIGNS.split()[1::2], strict=True))
"""Signs of currencies, and the code that each most often stands for."""

_CODES = """
AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP GHS HKD HUF IDR ILS INR ISK JPY KES KRW KWD
KZT LKR MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD TZS UAH UGX USD
UYU VND ZAR
"""
_CODE = "|".join(_CODES.split())
_MONEY = "|".join(sorted((re.escape(sign) for sign in SYMBOLS), key=len, reverse=True))
_BEFORE = re.compile(rf"([-+(]?)\s*({_MONEY}|{_CODE})(?=[\s0-9.,+-])\s*")
_AFTER = re.compile(rf"\s*({_MONEY}|{_CODE})(\)?)\Z")


def read_number(value: Any, rule: NumberRule) -> float | None:
    """Returns the number that a value holds by a field's rule, in the rule's unit; None if it holds none.

    Whole numbers stay exact integers, and others are rounded once, after a unit was converted.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > MAX_NUMBER:
        return None
    text = plain_minus(value.strip())
    if rule.currency is not None:
        text = _without_currency(text, rule.currency) or ""
    if rule.unit is not None:
        return _in_unit(text, rule.unit, rule.decimal)
    return _plain(text, rule.decimal)


def _plain(text: str, decimal: str) -> float | None:
    if not (_POINT if decimal == "." else _COMMA).fullmatch(text):
        return None
    digits = _digits(text, decimal)
    if _WHOLE.fullmatch(digits):
        return int(digits)
    number = float(digits)
    return number if abs(number) != float("inf") else None


def _digits(text: str, decimal: str) -> str:
    """Returns a number's text without separators and with a decimal point, as Python reads it."""
    if decimal == ",":
        text = text.replace(".", "").replace(",", ".")
    return _SEPARATORS.sub("", text)


@lru_cache(maxsize=CACHED_NUMBERS)
def _in_unit(text: str, wanted_unit: str, decimal: str) -> float | None:
    """Returns a number with a unit of the same quantity, converted.

    A number without a unit is taken to be in the rule's.
    """
    found = (_POINT if decimal == "." else _COMMA).match(text)
    if found is None:
        return None
    number = _plain(found[0].strip(), decimal)
    name = text[found.end() :].strip().rstrip(".")
    wanted = find_unit(wanted_unit)
    if number is None or wanted is None or not name:
        return number
    unit = find_unit(name)
    if unit is None or unit == wanted:
        return None if unit is None else number
    exactly = converted(Fraction(_digits(found[0].strip(), decimal)), unit, wanted)
    return None if exactly is None else nearest(exactly)


def exact(number: float) -> Fraction:
    """Returns the number that a float was written as: 0.7 is seven tenths, not the binary number near it."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def nearest(number: Fraction) -> float | None:
    """Returns a whole number as it is, and another as the float nearest to it; None if it is too large.

    Rounded once, equal numbers stay equal, however they were worked out.
    """
    if number.denominator == 1:
        return number.numerator
    try:
        return float(number)
    except OverflowError:
        return None


def _without_currency(text: str, currency: str) -> str | None:
    """Returns the text without one mark of a currency; None if it is of another than the one wanted.

    An amount in brackets is negative.
    """
    mark, sign = "", ""
    if found := _BEFORE.match(text):
        sign, mark, text = found[1], found[2], text[found.end() :]
    elif found := _AFTER.search(text):
        mark, text = found[1], text[: found.start()] + found[2]
    if sign == "(" or (text.startswith("(") and text.endswith(")")):
        text = "-" + text.strip("()").strip()
    elif sign:
        text = sign + text
    if not mark or currency == "any" or SYMBOLS.get(mark, mark) == currency:
        return text.strip()
    return None
