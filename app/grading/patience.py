"""Calls servers that may be busy: how many calls at once, how often again, and how long in all."""

from __future__ import annotations

import calendar
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_tz
from typing import TypeVar

from graders.types import GradeFailed

T = TypeVar("T")

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LONGEST_ASKED = 1e6
"""Seconds of a wait that a server asks for, beyond which it makes no difference: nobody waits so long."""


class Transient(Exception):
    """The call is worth another try. `failure` is what to raise if there is none; `after`: seconds asked
    for."""

    def __init__(self, failure: GradeFailed, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


def persevere(
    call: Callable[[float], T], *, tries: int, seconds: float, sleep: Callable[[float], object] = time.sleep
) -> T:
    """Returns what `call` returns, given the seconds that are left. After `Transient` it waits longer each
    time and calls again.

    Raises the last failure once tries or seconds are used up, or would be by the wait asked for.
    """
    deadline = time.monotonic() + seconds
    for attempt in range(tries):
        try:
            return call(deadline - time.monotonic())
        except Transient as busy:
            wait = _wait(attempt) if busy.after is None else busy.after
            if attempt + 1 == tries or time.monotonic() + wait >= deadline:
                raise busy.failure from None
            sleep(wait)
    raise AssertionError("there is at least one try")


def _wait(attempt: int) -> float:
    """Doubles the wait, and spreads it, so that those who were refused together do not come back together."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0))


def retry_after(headers: object) -> float | None:
    """Returns the seconds that a response asks for by `retry-after-ms` or `Retry-After`, 1e6 at most.

    None where it asks for none, or in no form that means anything. `headers` has a `get`.
    """
    get = getattr(headers, "get", dict[str, str]().get)
    milliseconds, text = get("retry-after-ms"), get("retry-after")
    seconds = _number(milliseconds, 1 / 1000)
    if seconds is None:
        seconds = _number(text)
    if seconds is None:
        seconds = _seconds_until(text)
    return None if seconds is None else max(0.0, min(seconds, LONGEST_ASKED))


def _number(text: object, unit: float = 1.0) -> float | None:
    try:
        found = float(text) * unit if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return None if math.isnan(found) else found


def _seconds_until(text: object) -> float | None:
    """Returns the seconds until an HTTP date, which is in GMT whether it says so or not; None of no date."""
    date = parsedate_tz(text) if isinstance(text, str) else None
    if date is None:
        return None
    try:
        return calendar.timegm((*date[:6], 0, 0, 0)) - (date[9] or 0) - time.time()
    except (ValueError, OverflowError):
        return None


class Gate:
    """Lets a number of calls through at a time, at most so many a second, and none while a pause lasts."""

    def __init__(
        self, concurrency: int, rate: float | None = None, place: Callable[[], float] | None = None
    ) -> None:
        """`place` takes a place among the calls of other processes, and returns the seconds until then."""
        self._place = place
        self._free = threading.BoundedSemaphore(concurrency)
        self._spacing = 1.0 / rate if rate else 0.0
        self._lock = threading.Lock()
        self._next = 0.0  # no call before this, by the monotonic clock

    @contextmanager
    def through(self) -> Iterator[None]:
        with self._free:
            place = self._place() if self._place is not None else 0.0
            if (wait := max(place, self._turn())) > 0:  # a sleep of 0 gives the processor away
                time.sleep(wait)
            yield

    def pause(self, seconds: float) -> None:
        """Holds calls back, whoever makes them: the server wants none for that long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def _turn(self) -> float:
        """Takes the next free place in the row. Returns the seconds until then."""
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + self._spacing
            return turn - now
