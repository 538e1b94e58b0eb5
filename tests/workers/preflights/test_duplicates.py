"""Copies of prompts are found, and nothing else is taken for one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.rows import Row
from tests.properties import examples
from workers.preflights.duplicates import Prompt, find_conflicts, find_copies, prompt_of

WORDS = [f"{a}{b}{c}" for a in "bdfklmnprst" for b in "aeiou" for c in "bdklmnrst"]


def prompts(*texts: str, references: Sequence[str | None] = ()) -> list[Prompt]:
    wanted = [*references, *[None] * len(texts)]
    return [
        prompt_of(line, {"messages": [{"role": "user", "content": text}]}, wanted[line - 1])
        for line, text in enumerate(texts, 1)
    ]


def copies(*texts: str) -> list[tuple[int, int, bool]]:
    return [tuple(found) for found in find_copies(prompts(*texts))]  # type: ignore[misc]


LONG = (
    "Write a short story about a small dog that lives in a large house near the sea and likes to swim all day"
)


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        pytest.param("Say a.", "Say  a.\n", [(1, 0, True)], id="white-space"),
        pytest.param("Say a.", "say A", [(1, 0, False)], id="case-and-stops"),
        pytest.param(LONG, LONG.replace("day", "night"), [(1, 0, False)], id="one-word-of-22"),
        pytest.param(LONG, f"{LONG} 2", [], id="another-number"),
        pytest.param("What is 3 - 2?", "What is 3 + 2?", [], id="another-sign"),
        pytest.param("What is 12 minus 34?", "What is 34 minus 12?", [], id="numbers-the-other-way"),
        pytest.param("Say a.", "Say e.", [], id="short-and-other"),
        pytest.param("北京在哪里", "上海在哪里", [], id="no-spaces-other"),
        pytest.param("北京在哪里?", "北京在哪里", [(1, 0, False)], id="no-spaces-same"),
        pytest.param("", "", [(1, 0, True)], id="empty"),
        pytest.param("?!", "...", [(1, 0, False)], id="nothing-but-stops"),
    ],
)
def test_what_counts_as_a_copy(first: str, second: str, found: list[Any]) -> None:
    assert copies(first, second) == found


def test_tools_and_roles_belong_to_a_prompt() -> None:
    said = {"messages": [{"role": "user", "content": "Weather?"}]}
    tool = {"type": "function", "function": {"name": "weather"}}
    spoken = {"messages": [{"role": "system", "content": "Weather?"}]}
    exact = {prompt_of(1, item, None).exact for item in (said, {**said, "tools": [tool]}, spoken)}
    assert len(exact) == 3


@pytest.mark.parametrize("n", [5, 30, 300])
def test_rows_of_one_template_are_no_copies(n: int) -> None:
    template = (
        "You are a careful assistant. Read the sentence below and give the name of the town and of the person"
        " in it as one JSON object with two keys and nothing else at all: {} went to {} by train yesterday."
    )
    texts = [template.format(WORDS[i], WORDS[-i - 1]) for i in range(n)]
    assert copies(*texts) == []


@examples(20)
@given(st.builds(random.Random, st.integers(0, 2**32)))
def test_planted_copies_are_found_and_no_others(chance: random.Random) -> None:
    """Of 40 words one is another: 35 runs of 41 are in both, 85 %."""
    texts = [" ".join(chance.choices(WORDS, k=40)) for _ in range(100)]
    planted = {}
    for place in chance.sample(range(100), 10):
        words = texts[place].split()
        words[chance.randrange(40)] = "another"
        planted[len(texts)] = place
        texts.append(" ".join(words))
    assert {later: first for later, first, _ in copies(*texts)} == planted


@examples(20)
@given(st.builds(random.Random, st.integers(0, 2**32)))
def test_each_prompt_names_the_first_of_its_kind(chance: random.Random) -> None:
    texts = chance.choices(["Say a.", "say a", "Say  a.", "Say b.", "SAY B"], k=12)
    kinds = [text.casefold().split()[1][0] for text in texts]
    for later, first, is_exact in copies(*texts):
        assert kinds.index(kinds[later]) <= first < later
        assert kinds[first] == kinds[later]
        assert is_exact == (" ".join(texts[first].split()) == " ".join(texts[later].split()))
    assert len(copies(*texts)) == len(texts) - len(set(kinds))


def test_the_same_prompt_with_another_reference_is_a_conflict() -> None:
    given = prompts("Say a.", "Say b.", "Say  a.", "Say b.", "Say c.", references=["a", "b", "e", "b", None])
    assert find_conflicts(given) == [[0, 2]]


def test_rows_hold_prompts_of_every_method() -> None:
    row = Row(3, {"input": {"messages": [{"role": "user", "content": "Hi"}]}, "preferred_output": []})
    assert prompt_of(row.line, row.item, "Hello").text == "Hi"
