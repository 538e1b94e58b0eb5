"""Text of models is shown as it is, and what would hide or reorder it is seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.dashboard.times import duration, moment
from app.dashboard.visible import coded, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        pytest.param("\x1b[31mred", "␛", id="terminal"),
        pytest.param("user\u202etxt.exe", "U+202E", id="right-to-left"),
        pytest.param("a\u200bb", "U+200B", id="zero-width"),
        pytest.param("a\U000e0041b", "U+E0041", id="tag-character"),
        pytest.param("a\u200db", "U+200D", id="joiner-of-latin"),
        pytest.param("\x00", "␀", id="nul"),
    ],
)
def test_what_hides_is_named(text: str, seen: str) -> None:
    shown = visible(text)
    assert f">{seen}</span>" in shown
    assert not any(hidden in shown for hidden in text if not hidden.isprintable())


@pytest.mark.parametrize("text", ["👩‍👩‍👧 family", "می‌خواهم", "line\n\ttab", "naïve ≤ ½"], ids=ascii)
def test_ordinary_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_markup_is_text() -> None:
    assert visible("<b>\u202e&") == (
        '&lt;b&gt;<span class="hidden-mark" title="right-to-left override">U+202E</span>&amp;'
    )
    assert visible(None) == ""


def test_times_have_their_zone_and_durations_two_units() -> None:
    assert moment(datetime(2026, 11, 30, 9, 5, 1, tzinfo=UTC)) == (
        '<time datetime="2026-11-30T09:05:01+00:00">2026-11-30 09:05:01 UTC</time>'
    )
    assert moment(None) == ""
    lengths = [0.4, 59.6, 3723, timedelta(days=2, minutes=5)]
    assert [duration(length) for length in lengths] == ["0 s", "1 min", "1 h 2 min", "2 d"]


def test_words_between_backticks_are_code_and_all_is_escaped() -> None:
    assert coded("`eq` is <b>, `a<b` too") == "<code>eq</code> is &lt;b&gt;, <code>a&lt;b</code> too"
    assert coded("none") == "none"
