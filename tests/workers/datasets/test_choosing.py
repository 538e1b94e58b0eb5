"""Which candidates stay: no copies, nothing of the validation file, the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from methods.rows import Row
from workers.datasets.choosing import Chosen, conflicting, copies
from workers.datasets.rows import Candidate, LeftOut, Source

START = datetime(2026, 12, 1, tzinfo=UTC)
LONG = (
    "Please write a short and friendly answer to Ann, who asks whether her parcel has left the warehouse"
    " yet; tell her that the driver calls before he comes, that somebody must sign for it at the door, and"
    " that she can choose another day on our page as long as the parcel is not on its way"
)
OTHER = "How many moons has Mars, and what are they called by the people who look at them through telescopes?"


def candidate(text: str, number: int = 0, said: int | None = None, answer: str = "a") -> Candidate:
    row = {"messages": [{"role": "user", "content": text}], "reference": answer}
    said_at = None if said is None else START + timedelta(hours=said)
    sources = (Source("prompt", f"c{number}", 0, "m", []),)
    return Candidate(row, sources, START + timedelta(minutes=number), said_at)


def validation(*texts: str) -> list[Row]:
    return [Row(line, candidate(text).row) for line, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("dedupe", "expected"),
    [
        ("none", {}),
        ("exact", {1: "exact_duplicate"}),
        ("near", {1: "exact_duplicate", 2: "near_duplicate"}),
    ],
)
def test_copies_go_as_far_as_is_asked_for(dedupe: str, expected: dict[int, str]) -> None:
    rows = [candidate(text) for text in (LONG, LONG + " ", LONG.replace("short", "brief"), OTHER)]
    assert copies(rows, "reinforcement", dedupe, []) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("dedupe", ["none", "exact", "near"])
def test_what_the_validation_file_asks_goes_whatever_copies_may_stay(dedupe: str) -> None:
    rows = [
        candidate(text)
        for text in (OTHER, LONG.replace("short", "brief"), LONG, LONG.replace("short", "brief"))
    ]
    found = copies(rows, "reinforcement", dedupe, validation(LONG))  # type: ignore[arg-type]
    assert found == {1: "leak", 2: "leak", 3: "leak"}, "also what copies a leak exactly"


def test_rows_of_other_methods_are_compared_by_what_they_ask() -> None:
    ask = {"role": "user", "content": LONG}
    answers = [{"role": "assistant", "content": text} for text in ("a", "b")]
    chats = [Candidate({"messages": [ask, answer]}, (), START, None) for answer in answers]
    assert copies(chats, "supervised", "near", []) == {1: "exact_duplicate"}
    assert conflicting(chats, "supervised") == 2
    row = {"input": {"messages": [ask]}, "preferred_output": answers[:1], "non_preferred_output": answers[1:]}
    assert copies([Candidate(row, (), START, None)] * 2, "dpo", "near", []) == {1: "exact_duplicate"}


def test_of_one_prompt_what_was_said_last_stays_else_the_newest() -> None:
    chosen = Chosen(
        [candidate(OTHER, 1), candidate(LONG, 2, said=5), candidate(LONG, 3, said=1), candidate(OTHER, 4)]
    )
    chosen.sort_for_choice()
    chosen.drop(copies(chosen.rows, "reinforcement", "near", []))
    chosen.keep_newest(10)
    assert [row.sources[0].completion_id for row in chosen.rows] == ["c2", "c4"]
    assert chosen.left_out == {"exact_duplicate": 2, "over_max_rows": 0}


def test_the_newest_stay_in_their_order() -> None:
    chosen = Chosen([candidate(str(n), n) for n in (3, 1, 2)])
    chosen.keep_newest(2)
    assert [row.sources[0].completion_id for row in chosen.rows] == ["c2", "c3"]
    assert chosen.left_out == {"over_max_rows": 1}


def test_what_a_job_would_refuse_is_left_out_and_named() -> None:
    bad = Candidate(
        {"messages": [{"role": "assistant", "content": "x"}]}, candidate("x", 7).sources, START, None
    )
    chosen = Chosen()
    chosen.take([candidate(LONG, 1), bad, LeftOut("c9", "truncated")])
    chosen.keep_valid("reinforcement")
    assert [row.sources[0].completion_id for row in chosen.rows] == ["c1"]
    assert chosen.left_out == {"truncated": 1, "invalid": 1}
    (named,) = chosen.invalid
    assert named["completion_id"] == "c7"
    assert "the last message is from the assistant" in named["reason"]
