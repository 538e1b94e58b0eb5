"""Rows of stored completions, by format: which answer they take, and why there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from methods.tuning_rows import row_check
from workers.datasets.rows import Candidate, LeftOut, candidates
from workers.datasets.stored import Choice, Kept, Said, fits_rewards

START = datetime(2026, 12, 1, tzinfo=UTC)
ASKED = [{"role": "user", "content": "2 + 2?"}]


def said(number: int, choice: int = 0, **what: Any) -> Said:
    """Feedback; a higher number is a later one."""
    given = {"reward": None, "correction": None, "reference": None} | what
    return Said(f"fdbk_{number}", choice, created_at=START + timedelta(hours=number), **given)


def kept(*feedback: Said, answers: tuple[str, ...] = ("5",), cut: bool = False, number: int = 1) -> Kept:
    choices = [Choice(answer, cut) for answer in answers]
    return Kept(f"c{number}", "m", ASKED, choices, START + timedelta(minutes=number), feedback)


def made(format_: str, *completions: Kept, least: float | None = None, references: bool = True) -> list[Any]:
    """What becomes of completions: the answer of each row, or the reason why there is none."""
    request = {"filter": {"min_reward": least}, "references": references}
    found = []
    for each in candidates(format_, completions, request):
        if isinstance(each, LeftOut):
            found.append(each.reason)
            continue
        row_check(format_)(each.row)
        found.append(_answer(format_, each))
    return found


def _answer(format_: str, candidate: Candidate) -> Any:
    row = candidate.row
    if format_ == "supervised":
        assert row["messages"][:-1] == ASKED
        return (row["messages"][-1]["content"],)
    if format_ == "dpo":
        assert row["input"] == {"messages": ASKED}
        return row["preferred_output"][0]["content"], row["non_preferred_output"][0]["content"]
    assert row["messages"] == ASKED
    return (row["reference"],) if "reference" in row else ()


@pytest.mark.parametrize(
    ("completion", "reinforcement", "supervised"),
    [
        pytest.param(kept(), "no_reference", ("5",), id="nothing-said"),
        pytest.param(kept(said(1, reward=1.0)), ("5",), ("5",), id="full-marks"),
        pytest.param(kept(said(1, reward=0.6)), "no_reference", ("5",), id="good"),
        pytest.param(kept(said(1, reward=0.4)), "no_reference", "low_reward", id="bad"),
        pytest.param(
            kept(said(1, reward=1.0), said(2, reward=0.0)), "no_reference", ("5",), id="mean-of-two"
        ),
        pytest.param(kept(said(1, correction="4")), ("4",), ("4",), id="corrected"),
        pytest.param(
            kept(said(1, correction="3"), said(2, correction="4")), ("4",), ("4",), id="newest-correction"
        ),
        pytest.param(kept(said(1, reference={"n": 4})), ({"n": 4},), "only_reference", id="reference"),
        pytest.param(kept(said(1, reference="4"), said(2, correction="four")), ("4",), ("four",), id="both"),
        pytest.param(kept(said(1, reward=1.0), answers=("",)), "no_reference", "empty", id="no-text"),
        pytest.param(kept(said(1, reward=1.0), answers=(" \n",)), "no_reference", "empty", id="blank"),
        pytest.param(kept(cut=True), "no_reference", "truncated", id="cut"),
        pytest.param(kept(said(1, reward=1.0), cut=True), "no_reference", "truncated", id="cut-and-rewarded"),
        pytest.param(
            kept(said(1, 0, reward=0.1), said(2, 1, reward=1.0), answers=("5", "4")),
            ("4",),
            ("4",),
            id="best-choice",
        ),
        pytest.param(
            kept(said(1, 0, reward=0.0), answers=("5", "4")),
            "no_reference",
            "low_reward",
            id="only-one-rated",
        ),
    ],
)
def test_an_answer_is_what_was_said_to_be_one(completion: Kept, reinforcement: Any, supervised: Any) -> None:
    assert made("reinforcement", completion) == [reinforcement]
    assert made("supervised", completion) == [supervised]


def test_a_bound_of_the_filter_says_what_is_good() -> None:
    assert made("supervised", kept(said(1, reward=0.4)), least=0.3) == [("5",)]
    assert made("supervised", kept(said(1, reward=0.6)), least=0.7) == ["low_reward"]


def test_prompts_alone_are_rows_where_no_reference_is_wanted() -> None:
    assert made("reinforcement", kept(said(1, reference="4")), kept(), references=False) == [(), ()]


@pytest.mark.parametrize(
    ("completions", "pair"),
    [
        pytest.param([kept(said(1, correction="4"))], ("4", "5"), id="a-correction-and-what-it-corrects"),
        pytest.param([kept(said(1, correction="5"))], "no_pair", id="corrected-to-the-same"),
        pytest.param([kept(said(1, correction="4"), answers=("\n ",))], "no_pair", id="a-blank-answer"),
        pytest.param([kept(said(1, reward=1.0))], "no_pair", id="one-answer"),
        pytest.param(
            [kept(said(1, 0, reward=0.2), said(2, 1, reward=0.9), answers=("5", "4"))],
            ("4", "5"),
            id="two-choices",
        ),
        pytest.param(
            [kept(said(1, reward=0.2)), kept(said(2, reward=0.9), answers=("4",), number=2)],
            ("4", "5"),
            id="two-completions",
        ),
        pytest.param(
            [kept(said(1, reward=0.9)), kept(said(2, reward=0.9), answers=("4",), number=2)],
            "no_pair",
            id="equal-rewards",
        ),
        pytest.param(
            [kept(said(1, reward=0.9)), kept(said(2, reward=0.1), number=2)], "no_pair", id="the-same-text"
        ),
        pytest.param(
            [kept(said(1, reward=0.9)), kept(said(2, correction="4"), answers=("6",), number=2)],
            ("4", "6"),
            id="a-correction-first",
        ),
    ],
)
def test_a_pair_is_of_answers_to_one_prompt(completions: list[Kept], pair: Any) -> None:
    assert made("dpo", *completions) == [pair]


def test_a_row_knows_where_it_came_from() -> None:
    completions = [
        kept(said(1, reward=0.2)),
        kept(said(2, reward=0.9), said(3, reward=0.7), answers=("4",), number=2),
    ]
    (pair,) = candidates("dpo", completions, {})
    assert isinstance(pair, Candidate)
    assert [tuple(source) for source in pair.sources] == [
        ("preferred", "c2", 0, "m", ["fdbk_2", "fdbk_3"]),
        ("non_preferred", "c1", 0, "m", ["fdbk_1"]),
    ]
    assert (pair.stored_at, pair.said_at) == (completions[1].created_at, START + timedelta(hours=3))


@pytest.mark.parametrize(
    ("least", "most", "fits"),
    [(None, None, True), (0.5, None, True), (0.51, None, False), (None, 0.49, False), (0.4, 0.6, True)],
)
def test_bounds_of_rewards_are_of_means(least: float | None, most: float | None, fits: bool) -> None:
    completion = kept(said(1, reward=0.0), said(2, reward=1.0))
    assert fits_rewards(completion, {"min_reward": least, "max_reward": most}) is fits
    if least is not None or most is not None:
        assert not fits_rewards(kept(), {"min_reward": least, "max_reward": most})
