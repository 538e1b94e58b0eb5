"""Environments that follow their episodes hear of every end that they did not decide, and judge it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.training.episodes.support import ENDS, TEMPLATE, EveryTurnCalls, Looking, prompts_of
from tests.workers.training.support import make_config
from workers.training.base.parts import Parts
from workers.training.base.turns import CallResult
from workers.training.base.types import Completion
from workers.training.episodes.environment import EpisodeLost, Reply
from workers.training.episodes.limits import EpisodeLimits
from workers.training.episodes.play import Play
from workers.training.model.policy import Policy
from workers.training.rewards import sample_of
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.sampling.turns import Over


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """One token in seven ends a turn."""
    tokenizer = byte_tokenizer(TEMPLATE)
    folder = make_tiny_model(tmp_path_factory.mktemp("sharp"), scale=0.3, context=512, tokenizer=tokenizer)
    policy = Policy.load(make_config(folder))
    policy.end_ids = (*ENDS, tokenizer.eos_token_id)
    return policy


class Judging:
    """Answers calls as `Looking` does, and judges each end by its number of turns."""

    def __init__(self, text: str = "found", *, loses: bool = False) -> None:
        self.text, self.loses = text, loses
        self.heard: list[tuple[bool, bool]] = []
        self.lock = threading.Lock()

    def start(self, item: Any, trace_id: str) -> Judged:
        return Judged(self)


class Judged:
    def __init__(self, environment: Judging) -> None:
        self.environment = environment
        self.turns = 0

    def reply(self, parts: Parts) -> Reply:
        self.turns += 1
        if self.turns == 3:
            return Reply(reward=30.0)
        return Reply([CallResult("call_1", parts.calls[0], self.environment.text)])

    def end(self, parts: Parts | None, *, is_cut: bool) -> Reply:
        with self.environment.lock:
            self.environment.heard.append((parts is None, is_cut))
        if self.environment.loses:
            raise EpisodeLost("the process ended", {})
        return Reply(reward=float(self.turns + (parts is not None)))


def play(policy: Policy, environment: Any, steps: int, tokens: int = 400, *, follows: bool = True) -> Any:
    limits = EpisodeLimits(steps, tokens, policy.context)
    with ThreadPoolExecutor(8) as threads:
        turns = Play(
            environment,
            policy.tokenizer,
            EveryTurnCalls(),
            prompts_of(policy, 3),
            limits,
            policy.end_ids,
            threads,
            follows=follows,
        )
        sampling = Sampling(samples=4, max_tokens=tokens, temperature=1.0, key=("train", 1, 5))
        groups = sample_groups(policy, prompts_of(policy, 3), sampling, turns=turns)
    return [completion for group in groups for completion in group.completions]


def told(completions: list[Completion]) -> set[tuple[int, str, float | None]]:
    return {(len(c.turns), c.finish_reason, c.environment_reward) for c in completions}


def test_an_end_at_the_last_step_is_told_and_judged(policy: Policy) -> None:
    environment = Judging()
    found = play(policy, environment, steps=2)
    assert told(found) == {(2, "length", 2.0)}
    assert environment.heard == [(False, True)] * len(found)
    assert {sample_of(completion).environment_reward for completion in found} == {2.0}


def test_an_episode_of_one_turn_is_begun_and_judged(policy: Policy) -> None:
    assert told(play(policy, Judging(), steps=1)) == {(1, "length", 1.0)}


def test_its_own_end_is_not_told_again(policy: Policy) -> None:
    environment = Judging()
    assert told(play(policy, environment, steps=9)) == {(3, "stop", 30.0)}
    assert environment.heard == []


def test_a_reply_that_does_not_fit_into_the_context_is_an_end_too(policy: Policy) -> None:
    environment = Judging("x" * 600)
    found = play(policy, environment, steps=9)
    assert told(found) == {(1, "length", 1.0)}
    assert environment.heard == [(True, True)] * len(found)


def test_a_judgement_that_fails_loses_the_episode(policy: Policy) -> None:
    found = play(policy, Judging(loses=True), steps=2)
    assert {completion.lost for completion in found} == {"the process ended"}


def test_following_changes_no_bit_of_what_is_sampled(policy: Policy) -> None:
    expected = play(policy, Looking(), steps=2, follows=False)
    found = play(policy, Judging("found 1"), steps=1)
    assert [c.turns[0].tokens for c in found] == [c.turns[0].tokens for c in expected]


class Leaving(Judging):
    """Hears which episodes were left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    def start(self, item: Any, trace_id: str) -> Judged:
        environment = self

        class Left(Judged):
            def drop(self) -> None:
                environment.left.append(trace_id)

        return Left(self)


def test_episodes_are_left_when_sampling_breaks_off_but_for_those_that_are_over(policy: Policy) -> None:
    environment, limits = Leaving(), EpisodeLimits(9, 400, policy.context)
    prompts = prompts_of(policy, 3)
    with ThreadPoolExecutor(8) as threads:
        own = (environment, policy.tokenizer, EveryTurnCalls(), prompts, limits, policy.end_ids, threads)
        turns, over = Play(*own, follows=True), []
        for row in range(3):
            turns.end(row, 0, Completion((5, ENDS[1]), (-1.0, -1.0), "", "length" if row == 0 else "stop"))
        while turns.are_open:
            over += [one for one in turns.next(wait=True) if isinstance(one, Over)]
        turns.end(1, 0, Completion((5, ENDS[1]), (-1.0, -1.0), "", "stop"))
        turns.drop()
    assert len(over) == 1
    assert len(set(environment.left)) == 2
    assert over[0].completion.trace_id not in environment.left
