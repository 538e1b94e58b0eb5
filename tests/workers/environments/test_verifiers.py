"""Environments of the real package `verifiers`, in the Python that CHERRY_TEST_VERIFIERS names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.table_settings import EnvironmentEntry
from workers.environments.named.environment import NamedEnvironment
from workers.training.base.parts import Parts, ToolCall
from workers.training.episodes.environment import EpisodeLost

PYTHON = os.environ.get("CHERRY_TEST_VERIFIERS")
HERE = str(Path(__file__).parent)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        PYTHON is None, reason="CHERRY_TEST_VERIFIERS names no Python that has 'verifiers<0.4' installed"
    ),
]


@pytest.fixture(scope="module")
def made() -> Iterator[Callable[[str], NamedEnvironment]]:
    kept: dict[str, NamedEnvironment] = {}

    def of(kind: str) -> NamedEnvironment:
        if kind not in kept:
            entry = EnvironmentEntry(verifiers="verifiers-words", python=PYTHON, env={"PYTHONPATH": HERE})
            kept[kind] = NamedEnvironment("words", entry, {"kind": kind})
        return kept[kind]

    yield of
    for environment in kept.values():
        environment.close()


Made = Callable[[str], NamedEnvironment]


def said(environment: NamedEnvironment, row: Any, *answers: str) -> list[Any]:
    episode = environment.start(row, f"trace_{'_'.join(answers)}")
    return [episode.reply(Parts(answer=answer)) for answer in answers]


def test_several_turns_end_by_the_environments_own_stop_with_its_rubrics_reward(made: Made) -> None:
    rows = made("several").rows(0, 10)
    first = {"role": "system", "content": "Guess."}
    assert [row["messages"] for row in rows] == [[first, {"role": "user", "content": "Which word?"}]] * 2
    assert [(row["answer"], row["info"]) for row in rows] == [("red", {"n": 0}), ("blue", {"n": 1})]
    reply, over = said(made("several"), rows[1], "green", "it is blue")
    assert reply.messages == [{"role": "user", "content": "Not green, 2 left."}]
    assert (over.is_over, over.reward) == (True, 1.0)


def test_limits_of_ours_end_its_rollout_and_it_judges_that(made: Made) -> None:
    (row, _) = made("several").rows(0, 10)
    episode = made("several").start(row, "trace_cut")
    episode.reply(Parts(answer="green"))
    assert episode.end(Parts(answer="still green"), is_cut=True).reward == 0.25
    episode = made("several").start(row, "trace_unread")
    episode.reply(Parts(answer="green"))
    assert episode.end(None, is_cut=True).reward == 0.25


def test_a_single_turn_is_judged(made: Made) -> None:
    (row, _) = made("single").rows(0, 10)
    (over,) = said(made("single"), row, "red, I think")
    assert (over.is_over, over.reward) == (True, 1.0)


def test_its_tools_are_in_its_rows_and_answer_calls(made: Made) -> None:
    (row, _) = made("tools").rows(0, 10)
    assert [tool["function"]["name"] for tool in row["tools"]] == ["look_up"]
    episode = made("tools").start(row, "trace_calls")
    calls = (ToolCall("look_up", {"key": "a"}), ToolCall("look_up", {"wrong": 1}))
    right, wrong = episode.reply(Parts(answer="", calls=calls)).results
    assert (right.output, right.is_known) == ("97", True)
    assert "unexpected keyword argument" in wrong.output
    assert episode.reply(Parts(answer="red")).reward == 1.0
    episode = made("tools").start(row, "trace_last")
    assert episode.end(Parts(answer="red", calls=calls), is_cut=True).reward == 1.0


def test_a_reward_function_that_fails_is_no_reward_of_0(made: Made) -> None:
    """The package itself logs it and counts 0."""
    (row, _) = made("single").rows(0, 10)
    with pytest.raises(
        EpisodeLost, match="reward function 'correct' failed: ConnectionError: the judge is away"
    ):
        said(made("single"), row, "judge")


WRONG = {
    "rewrites": "it has changed what was said before",
    "fails": "its rollout failed: .*no such place",
    "opens": "with other messages than the row has",
}


@pytest.mark.parametrize(("kind", "told"), WRONG.items(), ids=WRONG)
def test_what_cannot_be_followed_loses_the_episode(made: Made, kind: str, told: str) -> None:
    (row, _) = made(kind).rows(0, 10)
    with pytest.raises(EpisodeLost, match=told):
        said(made(kind), row, "green")


def test_one_that_judges_groups_is_refused(made: Made) -> None:
    with pytest.raises(EpisodeLost, match="compares the rollouts of a group"):
        made("groups").rows(0, 10)
