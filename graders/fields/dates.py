"""Reads days and times out of text."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from graders.fields.spec import DateRule

MAX_DATE = 60
"""Characters of a text that may be a date."""

_NUMERIC = re.compile(r"([0-9]{1,4})([-/. ])([0-9]{1,2})\2([0-9]{1,4})")
_DAY_FIRST = re.compile(
    r"([0-9]{1,2})(?:st|nd|rd|th|er|º)? (?:of |de |di )?([^\W\d_]+) (?:de |di )?([0-9]{4})"
)
_MONTH_FIRST = re.compile(r"([^\W\d_]+) ([0-9]{1,2})(?:st|nd|rd|th)? ([0-9]{4})")
_TIME = re.compile(r"[ ,]+(?:at )?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))? ?([ap]\.?m\.?)?\Z", re.IGNORECASE)
_WEEKDAY = re.compile(r"(?:mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur|sun)(?:day)? ")
_YEAR_MONTH = re.compile(r"([0-9]{4})(?:[-/.](0?[1-9]|1[0-2]))?")
_MONTH_YEAR = re.compile(r"([^\W\d_]+)\.?,? (?:de )?([0-9]{4})")
_MONTHS = """
january janvier januar enero gennaio janeiro januari
february février februar febrero febbraio fevereiro februari
march mars märz marzo março maart
april avril abril aprile
may mai mayo maggio maio mei
june juin juni junio giugno junho
july juillet juli julio luglio julho
august août agosto augustus
september septembre septiembre settembre setembro
october octobre oktober octubre ottobre outubro
november novembre noviembre novembro
december décembre dezember diciembre dicembre dezembro
"""
"""In English, French, German, Spanish, Italian, Portuguese and Dutch."""


def _month_names() -> dict[str, int]:
    """Returns the number of each month by its names.

    The English and some German names are there cut to three letters too (and `sept`).
    """
    names = {"sept": 9, "mär": 3, "okt": 10, "dez": 12, "mai": 5}
    for number, line in enumerate(_MONTHS.strip().splitlines(), start=1):
        english, *others = line.split()
        names |= dict.fromkeys((english, *others), number)
        names[english[:3]] = number
    return names


_MONTH = _month_names()


def read_date(value: Any, rule: DateRule) -> tuple[int, ...] | None:
    """Returns what a text names, as far as the rule looks: (year), (year, month), and so on to the second.

    Hours and smaller are in UTC; a time without a zone is in the rule's. None if the text is not clear.
    """
    if not isinstance(value, str) or len(value) > MAX_DATE:
        return None
    text = value.strip()
    depth = _DEPTH[rule.precision]
    moment = _by_formats(text, rule.formats) or _moment(text, rule.day_first)
    if moment is None:
        return _month(text, depth)
    if depth > _DEPTH["day"]:
        moment = _in_utc(moment, rule.timezone)
    if moment is None:
        return None
    return (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)[:depth]


_DEPTH = {"year": 1, "month": 2, "day": 3, "minute": 5, "second": 6}


def _month(text: str, depth: int) -> tuple[int, ...] | None:
    """Reads a year, or a month and a year, where no more is looked at: `2024`, `2024-03`, `March 2024`."""
    found = _YEAR_MONTH.fullmatch(text)
    year, month = (found[1], found[2]) if found else ("", None)
    if named := _MONTH_YEAR.fullmatch(text.lower()):
        year, month = named[2], str(_MONTH.get(named[1], 0))
    parts = (int(year or 0), int(month or 0))[: max(1, depth)]
    return (
        parts if depth <= _DEPTH["month"] and parts[0] and parts[-1] >= 1 and (month or depth == 1) else None
    )


def _in_utc(moment: datetime, zone: str) -> datetime | None:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone_of(zone))).astimezone(UTC)
    except OverflowError:
        return None


def zone_of(name: str) -> tzinfo:
    """Returns a zone by its name, such as `Europe/Rome`. Raises `ValueError` for one that is not known."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (OSError, KeyError, ValueError):
        raise ValueError(name) from None


def _by_formats(text: str, formats: list[str] | None) -> datetime | None:
    for pattern in formats or ():
        try:
            return datetime.strptime(text, pattern)  # zones are dealt with later
        except ValueError:
            continue
    return None


def _moment(text: str, day_first: bool | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    clock = time()
    if found := _TIME.search(text):
        text, moment = text[: found.start()], _clock(found)
        if moment is None:
            return None
        clock = moment
    try:
        day = _day(text.strip(), day_first)
    except ValueError:
        return None
    return datetime.combine(day, clock) if day else None


def _clock(found: re.Match[str]) -> time | None:
    hour = int(found[1])
    if half := (found[4] or "").lower()[:1]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    try:
        return time(hour, int(found[2]), int(found[3] or 0))
    except ValueError:
        return None


def _day(text: str, day_first: bool | None) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    if numeric := _NUMERIC.fullmatch(text):
        return _numeric(numeric[1], numeric[3], numeric[4], day_first)
    return _written(text)


def _numeric(first: str, second: str, third: str, day_first: bool | None) -> date | None:
    if len(first) == 4:
        return date(int(first), int(second), int(third))
    a, b = int(first), int(second)
    if len(third) == 2 and day_first is not None:
        year = int(third) + (1900 if int(third) >= 69 else 2000)
    elif len(third) == 4:
        year = int(third)
    else:
        return None
    if day_first is None and a <= 12 and b <= 12 and a != b:
        return None
    a_is_day = a > 12 if day_first is None else day_first
    return date(year, b, a) if a_is_day else date(year, a, b)


def _written(text: str) -> date | None:
    plain = " ".join(re.sub(r"[,.\-/]", " ", text.lower()).split())
    plain = _WEEKDAY.sub("", plain, count=1) if _WEEKDAY.match(plain) else plain
    if found := _DAY_FIRST.fullmatch(plain):
        day, month, year = found.groups()
    elif found := _MONTH_FIRST.fullmatch(plain):
        month, day, year = found.groups()
    else:
        return None
    number = _MONTH.get(month)
    return date(int(year), number, int(day)) if number else None
