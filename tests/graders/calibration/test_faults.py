"""Each fault of a judge is named, by real servers that have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from graders import parse_grader
from graders.calibration.asking import Bounds
from graders.calibration.judge import CUT_SHORT
from graders.calibration.measuring import measure
from graders.calibration.people import agreement
from graders.calibration.verdict import verdict_of
from graders.intervals import Interval
from graders.services import Services
from tests.graders.calibration.judged import (
    BOUNDS,
    LABEL,
    RANK,
    RUBRIC,
    SCORE,
    labelled,
    measured,
    running_services,
)
from tests.judging.behaviours import Behaviour


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """One process that is a judge of each behaviour."""
    with running_services() as found:
        yield found


@pytest.mark.parametrize("raw", [SCORE, RUBRIC, RANK], ids=lambda raw: raw["type"])
def test_an_exact_judge_is_fit(services: Services, raw: dict[str, Any]) -> None:
    found = measured(services, "exact", raw)
    assert verdict_of(found) == ("fit to train against", [])
    assert found.agreement is not None
    assert found.agreement.correlation is not None
    assert found.agreement.share.value == 1.0
    assert found.agreement.correlation.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("behaviour", "raw", "code"),
    [
        ("noisy", SCORE, "noisy"),
        ("length", SCORE, "length"),
        ("gullible", SCORE, "gullible"),
        ("failing", SCORE, "failing"),
        ("unparsable", SCORE, "unparsable"),
        ("constant", SCORE, "no_order"),
        ("position", RUBRIC, "position"),
        ("position", RANK, "position"),
    ],
    ids=lambda given: given["type"] if isinstance(given, dict) else given,
)
def test_the_worst_fault_of_a_judge_is_named_first(
    services: Services, behaviour: Behaviour, raw: dict[str, Any], code: str
) -> None:
    verdict = verdict_of(measured(services, behaviour, raw))
    assert verdict.word == "do not use"
    assert verdict.remarks[0].code == code
    others = {remark.code for remark in verdict.remarks[1:]}
    assert others <= {"agrees_partly", "orders_partly"}


def test_each_judge_of_a_multi_grader_is_measured_by_itself(services: Services) -> None:
    length = {"type": "string_check", "name": "said", "operation": "like", "reference": "story"}
    parts = {
        "short": {**length, "input": "{{sample.output_text}}"},
        "good": {**SCORE, "model": "exact"},
        "kind": {**LABEL, "model": "gullible"},
    }
    raw = {"type": "multi", "name": "all", "graders": parts, "calculate_output": "short * (good + kind) / 2"}
    found = measure(parse_grader(raw), services, labelled(), BOUNDS)
    assert [judge.name for judge in found.judges] == ["good", "kind"]
    [gullible] = [remark for remark in verdict_of(found).remarks if remark.code == "gullible"]
    assert gullible.message.startswith("The judge 'kind' is talked round")


def test_a_grader_that_asks_nobody_is_compared_with_people_alone() -> None:
    check = {"type": "string_check", "name": "said", "operation": "like", "reference": "dog"}
    found = measure(
        parse_grader({**check, "input": "{{sample.output_text}}"}), Services(), labelled(), BOUNDS
    )
    assert found.judges == ()
    assert set(found.left_out) == {"position", "length", "talk", "unparsable"}
    assert found.agreement is not None
    assert found.constancy is not None
    assert found.constancy.deviation == 0


def test_a_judge_that_nobody_can_reach_is_asked_a_few_times_only() -> None:
    with running_services() as services:
        pass
    found = measured(services, "exact")
    assert found.is_lost
    assert found.graded == 0
    assert 8 <= found.spent.calls < 8 + BOUNDS.concurrency
    verdict = verdict_of(found)
    assert verdict.word == "do not use"
    assert {remark.code for remark in verdict.remarks} == {"nothing_graded", "lost"}


def test_a_slow_judge_is_named_and_the_time_is_kept_to() -> None:
    with running_services(delay_ms=1100) as services:
        found = measured(services, "slow", bounds=Bounds(seconds=1.0, concurrency=32))
    assert "slow" in {remark.code for remark in verdict_of(found).remarks}
    assert found.spent.calls == 20
    assert found.not_asked > 0


def test_no_more_calls_are_made_than_allowed(services: Services) -> None:
    found = measured(services, "exact", bounds=Bounds(calls=10))
    assert (found.spent.calls, found.graded) == (10, 10)
    assert found.not_asked > 0


@pytest.mark.parametrize("raw", [RUBRIC | {"calls": "each"}, RANK], ids=lambda raw: raw["type"])
def test_gradings_of_many_calls_keep_to_the_calls_too(services: Services, raw: dict[str, Any]) -> None:
    found = measured(services, "exact", raw, bounds=Bounds(calls=22, concurrency=32))
    assert 0 < found.spent.calls <= 22
    assert found.not_asked > 0
    assert found.spent.seconds_a_grade is not None
    assert found.spent.seconds_a_grade > 0


def test_what_was_not_measured_for_want_of_calls_is_not_called_fit(services: Services) -> None:
    found = measured(services, "exact", bounds=Bounds(calls=len(labelled())))
    verdict = verdict_of(found)
    assert (verdict.word, [remark.code for remark in verdict.remarks]) == ("use with care", ["cut_short"])
    [judge] = found.judges
    assert (judge.left_out["length"], judge.left_out["talk"]) == (CUT_SHORT, CUT_SHORT)


@pytest.mark.parametrize("scores", [(1.0, 2.0), (3.0, 5.0), (1.0, 5.0)])
def test_a_grader_that_says_what_people_say_agrees_with_them(scores: tuple[float, float]) -> None:
    found = agreement([(score, score) for score in scores * 10], Interval(1.0, 5.0))
    assert found is not None
    assert (found.statistic, found.share.value) == ("pass_fail", 1.0)
