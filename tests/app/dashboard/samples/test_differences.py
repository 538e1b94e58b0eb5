from __future__ import annotations

import random

import pytest

from app.dashboard.samples.differences import MOST_WORDS, difference


def sides(before: str, after: str) -> tuple[list[str], list[str]]:
    """The words of both texts, put together again from their difference."""
    pieces = difference(before, after).pieces
    old = "".join(piece.text for piece in pieces if piece.kind != "added")
    new = "".join(piece.text for piece in pieces if piece.kind != "removed")
    return old.split(), new.split()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param("", "", [], id="both-empty"),
        pytest.param("a b c", "a b c", [("same", "a b c")], id="same"),
        pytest.param(
            "the red car",
            "the blue car",
            [("same", "the"), ("removed", " red"), ("added", " blue"), ("same", " car")],
            id="one-word",
        ),
        pytest.param("", "new text", [("added", "new text")], id="all-new"),
        pytest.param("a a", "a", [("same", "a"), ("removed", " a")], id="repeated"),
    ],
)
def test_words_that_differ_are_told(before: str, after: str, told: list[tuple[str, str]]) -> None:
    assert [tuple(piece) for piece in difference(before, after).pieces] == told


def test_both_texts_can_be_put_together_again() -> None:
    numbers = random.Random(3)
    for _ in range(200):
        before, after = (" ".join(numbers.choices("abcd", k=numbers.randrange(30))) for _ in range(2))
        assert sides(before, after) == (before.split(), after.split())


def test_of_long_texts_the_beginning_is_compared_and_that_is_said() -> None:
    numbers = random.Random(4)
    texts = [" ".join(numbers.choices("ab", k=60_000)) for _ in range(2)]
    told = difference(*texts)
    assert told.is_cut
    assert len(sides(*texts)[0]) == MOST_WORDS
    assert not difference("a " * (MOST_WORDS - 1), "b").is_cut
