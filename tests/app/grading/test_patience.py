"""How long a server that is asked too much wants to be left alone."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from app.grading.patience import retry_after

HOUR = 3600.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": "0.5"}, 0.5, id="half-a-second"),
        pytest.param({"retry-after": "-3"}, 0.0, id="below-0"),
        pytest.param({"retry-after": "1e300"}, 1e6, id="for-ever"),
        pytest.param({"retry-after": "inf"}, 1e6, id="infinite"),
        pytest.param({"retry-after": "nan"}, None, id="no-number"),
        pytest.param({"retry-after": "soon"}, None, id="no-date"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0, id="past-date"),
        pytest.param({"retry-after": "Wed, 21 Oct 9999999 07:28:00 GMT"}, None, id="impossible-year"),
        pytest.param({"retry-after-ms": "250", "retry-after": "9"}, 0.25, id="milliseconds-first"),
        pytest.param({"retry-after-ms": "?", "retry-after": "9"}, 9.0, id="milliseconds-no-number"),
    ],
)
def test_what_a_response_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("zone", [" GMT", " -0000", "", " +0000"])
def test_a_date_is_in_gmt_wherever_this_runs(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    date = formatdate(time.time() + HOUR, usegmt=True).removesuffix(" GMT")
    found = retry_after({"retry-after": date + zone})
    monkeypatch.undo()
    time.tzset()
    assert found is not None
    assert HOUR - 60 < found <= HOUR
