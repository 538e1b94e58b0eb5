"""What a job's graders will ask and cost, told before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.grading.expected_cost import Expected, as_json, expected_cost, in_words, planned_answers
from app.settings import Settings
from graders import Grade, parse_grader
from graders.types import TokenUsage
from tests.app.grading.judge_servers import GRADER, settings_with
from tests.workers.training.support import make_config

ENTRY = {"base_url": "http://127.0.0.1:1/v1"}
PRICES = {"currency": "EUR", "models": {"judge": {"input": 1.0, "output": 4.0}}}
RUBRIC = {
    "type": "rubric",
    "name": "points",
    "model": "judge",
    "criteria": [{"criterion": f"It says {word}.", "points": 1} for word in "abc"],
}
RANK = {"type": "rank", "name": "order", "model": "judge"}
CONFIG: dict[str, Any] = {
    "n_epochs": 6,
    "prompts_per_step": 8,
    "group_size": 8,
    "eval_interval": 4,
    "eval_samples": 2,
    "eval_temperature": 1.0,
    "grade_concurrency": 32,
}
ASKED = [Grade(0.5, usage={"judge": TokenUsage(300, 50, 100, calls=1)}, seconds=2.0) for _ in range(3)]
CACHED = Grade(0.5, usage={"judge": TokenUsage()}, seconds=0.0)


def settings(**values: Any) -> Settings:
    return settings_with(**{"judges": {"judge": ENTRY}, "prices": PRICES, **values})


def cost(grader: dict[str, Any], gold: dict[str, Any] | None = None, **values: Any) -> Expected:
    spec, other = parse_grader(grader), parse_grader(gold) if gold else None
    config = make_config(Path("m"), **CONFIG)
    found = expected_cost(config, (16, 10), spec, other, [*ASKED, CACHED], settings(**values))
    assert found is not None
    return found


def test_answers_of_a_job_are_counted_as_it_trains_and_evaluates() -> None:
    """12 steps of 8 prompts x 8 answers; 4 evaluations of 10 rows: 2 answers each, and a greedy one."""
    planned = planned_answers(make_config(Path("m"), **CONFIG), 16, 10)
    assert (planned.steps, planned.prompts, planned.answers) == (12, 96, 768)
    assert (planned.evaluations, list(planned.evaluated)) == (4, [(10, 2), (10, 1)])


@pytest.mark.parametrize(
    ("grader", "training", "evaluation"),
    [
        pytest.param(GRADER, 768, 120, id="a-call-an-answer"),
        pytest.param(RUBRIC, 768, 120, id="all-criteria-in-one"),
        pytest.param({**RUBRIC, "calls": "each"}, 3 * 768, 3 * 120, id="a-call-a-criterion"),
        pytest.param(RANK, 96, 80, id="a-call-a-group"),
        pytest.param({**RANK, "permutations": 3}, 288, 240, id="several-orders"),
        pytest.param(
            {
                "type": "multi",
                "name": "both",
                "graders": {"a": GRADER, "b": {**GRADER, "name": "b"}},
                "calculate_output": "a + b",
            },
            2 * 768,
            2 * 120,
            id="parts-of-a-multi",
        ),
    ],
)
def test_calls_follow_the_kind_of_grader(grader: dict[str, Any], training: int, evaluation: int) -> None:
    found = cost(grader)
    assert (found.training, found.evaluation) == ({"judge": training}, {"judge": evaluation})


def test_tokens_money_and_time_follow_what_was_measured() -> None:
    """888 calls of 300 tokens in and 50 out, at 1 and 4 a million; 2 s each, 32 at a time."""
    found = cost(GRADER)
    assert found.usage == {"judge": TokenUsage(266_400, 44_400, 88_800, calls=888)}
    assert found.seconds == pytest.approx(888 * 2 / 32)
    assert as_json(found, settings())["cost"] == pytest.approx(0.444)
    assert in_words(found, settings()) == (
        "Graders ask judge about 888 times: 12 steps x 64 answers x 1 call, and about 120 calls at 4"
        " evaluations. At the measured 350 tokens a call that is about 310,800 tokens, about 0.44 EUR by"
        " CHERRY_PRICES. All calls take about 56 seconds, up to 32 at a time."
    )


def test_a_time_of_next_to_nothing_is_not_called_0_seconds() -> None:
    found = cost(GRADER)._replace(seconds=0.3)
    assert "All calls take less than a second, up to 32 at a time." in in_words(found, settings())


def test_a_limit_of_calls_a_minute_is_what_the_time_follows_where_it_is_slower() -> None:
    limited = {"judge": {**ENTRY, "calls_per_minute": 60}}
    assert cost(GRADER, judges=limited).seconds == 888


def test_a_gold_grader_counts_at_evaluations_and_what_is_not_known_is_said() -> None:
    gold = {**GRADER, "name": "gold", "model": "better"}
    both = {"judge": ENTRY, "better": ENTRY}
    found = cost(GRADER, gold, judges=both)
    assert found.evaluation == {"judge": 120, "better": 80}
    said = in_words(found, settings())
    assert "CHERRY_PRICES has no price of better. No call of better was measured." in said


def test_graders_that_ask_nobody_cost_nothing() -> None:
    check = {"type": "string_check", "name": "s", "input": "a", "reference": "a", "operation": "eq"}
    config = make_config(Path("m"), **CONFIG)
    assert expected_cost(config, (16, 10), parse_grader(check), None, [], settings()) is None
