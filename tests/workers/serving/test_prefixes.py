"""Sequences that are known: found by their first tokens, forgotten by use."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.serving.prefixes import BLOCK, Entry, Prefixes


def entry(tokens: list[int], owner: str = "a", nbytes: int = 10) -> Entry:
    def take(_: int) -> Any:
        return None

    return Entry(owner, tokens, take, nbytes)


@given(
    st.lists(st.lists(st.integers(0, 1), max_size=80), max_size=8), st.lists(st.integers(0, 1), max_size=80)
)
def test_the_longest_common_beginning_is_found(known: list[list[int]], asked: list[int]) -> None:
    prefixes = Prefixes()
    for tokens in known:
        prefixes.put(entry(tokens))
    found = prefixes.longest("a", asked)
    common = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, asked, strict=False)))
        for tokens in known
    ]
    longest = max(common, default=0) // BLOCK * BLOCK
    if longest == 0:
        assert found is None
    else:
        assert found is not None
        assert found[1] >= longest
        assert list(found[0].tokens[: found[1]]) == asked[: found[1]]


def test_what_goes_on_takes_the_place_of_its_beginning() -> None:
    prefixes, tokens = Prefixes(), list(range(60))
    running = entry(tokens[:50], nbytes=0)
    for each in (entry(tokens[:20]), running, entry(tokens[:40]), entry(tokens[:40], "b"), entry(tokens)):
        prefixes.put(each)
    assert (len(prefixes), prefixes.nbytes) == (3, 20)  # the whole, what runs, and another's
    found = prefixes.longest("a", tokens)
    assert found is not None
    assert found[1] == 60
    prefixes.drop(running)
    prefixes.drop(running)
    assert len(prefixes) == 2


def test_what_was_not_used_for_longest_makes_room() -> None:
    prefixes = Prefixes()
    all_tokens = [[i] * 20 for i in range(5)]
    for tokens in all_tokens:
        prefixes.put(entry(tokens))
    assert prefixes.longest("a", all_tokens[0]) is not None
    prefixes.shrink(20)
    assert [prefixes.longest("a", tokens) is not None for tokens in all_tokens] == [
        True, False, False, False, True,
    ]  # fmt: skip
    prefixes.shrink(0)
    assert (len(prefixes), prefixes.nbytes, prefixes._by_block, prefixes._by_last_block) == (0, 0, {}, {})
