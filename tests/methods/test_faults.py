"""Line numbers as a person would write them."""

from __future__ import annotations

import pytest

from methods.faults import MAX_RANGES, Fault, lines_in_words, told


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param([7], "line 7", id="one"),
        pytest.param([4, 5], "lines 4-5", id="two-together"),
        pytest.param([7, 4, 8, 5], "lines 4-5, 7-8", id="unordered"),
        pytest.param([1, 3, 5], "lines 1, 3, 5", id="apart"),
        pytest.param(
            range(2, 60, 2),
            f"lines {', '.join(map(str, range(2, 2 + 2 * MAX_RANGES, 2)))} and 19 more",
            id="many",
        ),
    ],
)
def test_lines_in_words(lines: list[int], words: str) -> None:
    assert lines_in_words(lines) == words


def test_each_fault_is_told_once() -> None:
    faults = [Fault(1, "bad"), Fault(2, "worse"), Fault(3, "bad"), Fault(0, "the file is odd")]
    assert list(told(faults, 5)) == ["lines 1, 3 (2 of 5 rows): bad", "line 2: worse", "the file is odd"]
