"""Writes times and durations as the pages show them: with their zone, and in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from markupsafe import Markup

TIME = Markup('<time datetime="{machine}">{shown}</time>')


def moment(at: datetime | int | None) -> Markup:
    """Returns a time with its date and zone, `2026-11-30 21:56:28 UTC`; nothing for None. A number is seconds
    since 1970."""
    return _shown(at, "%Y-%m-%d %H:%M:%S UTC")


def clock(at: datetime | int | None) -> Markup:
    """Returns the time of day alone, `21:56:28 UTC`; nothing for None."""
    return _shown(at, "%H:%M:%S UTC")


def duration(length: timedelta | float | None) -> str:
    """Returns a length of time in its two largest units, such as `3 h 5 min`; nothing for None."""
    if length is None:
        return ""
    seconds = round(length.total_seconds() if isinstance(length, timedelta) else length)
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((place for place, (count, _) in enumerate(units) if count), 3)
    told = [f"{count} {unit}" for count, unit in units[first : first + 2] if count]
    return " ".join(told) or "0 s"


def _shown(at: datetime | int | None, form: str) -> Markup:
    if at is None:
        return Markup("")
    when = at.astimezone(UTC) if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return TIME.format(machine=when.isoformat(timespec="seconds"), shown=when.strftime(form))
