"""Keeps of a long curve what a page can show: the ends of each stretch, its least and greatest."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 1000
"""Points of a curve that are sent: more cannot be told apart on a page."""
OF_BUCKET = 4


def kept(values: Sequence[float], most: int = MOST) -> Sequence[int]:
    """Returns the places of at most `most` values, in order; all of them where they are no more.

    Values are parted into stretches of one length, and of each stretch the first, the last, the least and the
    greatest stay: no peak is lost, however narrow it is.
    """
    count = len(values)
    if count <= most:
        return range(count)
    buckets = max(1, most // OF_BUCKET)
    found: list[int] = []
    for number in range(buckets):
        first, behind = number * count // buckets, (number + 1) * count // buckets
        stretch = values[first:behind]
        least, greatest = stretch.index(min(stretch)), stretch.index(max(stretch))
        found += sorted({first, first + least, first + greatest, behind - 1})
    return found
