"""Runs whose completions are episodes: gradients, lost rollouts, and a resume in the middle of a step."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from graders import FailureKind, TokenUsage
from methods import metrics as names
from methods.train_config import TrainConfig
from tests.chat_templates import tokenizer_of
from tests.tiny_model import make_tiny_model
from tests.workers.training.conftest import moved
from tests.workers.training.episodes.support import random_waits
from tests.workers.training.passes.test_forward import plain_logprobs
from tests.workers.training.support import (
    FunctionGrader,
    Killed,
    KilledRecorder,
    ListRecorder,
    make_config,
    make_rows,
)
from workers.training import update
from workers.training.base.errors import JudgeLost
from workers.training.base.types import Group
from workers.training.collector import sample_and_grade
from workers.training.episodes.environment import EpisodeLost, Reply
from workers.training.episodes.episodes import Episodes
from workers.training.loop import train
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.passes.forward import PackedCompletion
from workers.training.prompts import make_prompts
from workers.training.rendering.parts import reader_of
from workers.training.rewards import GradePool, rewards_of
from workers.training.sampling.rollout import Sampling

VOWELS = ("a", "e", "i", "o")


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A random model with the template of Qwen 3; stop strings end its turns."""
    folder = tmp_path_factory.mktemp("talking")
    return make_tiny_model(folder, scale=0.3, context=512, tokenizer=tokenizer_of("qwen3"))


class Asking:
    """Asks for more after each turn; loses some episodes."""

    def __init__(self, wait=lambda: 0.0, lose=lambda parts: False) -> None:
        self.wait, self.lose = wait, lose
        self.trace_ids: list[str] = []
        self.fault = FailureKind.TOOL_SERVER

    def start(self, item: Any, trace_id: str) -> Any:
        self.trace_ids.append(trace_id)
        environment = self

        class Episode:
            def reply(self, parts):
                environment.wait()
                if environment.lose(parts):
                    raise EpisodeLost("the server is away", kind=environment.fault)
                return Reply(messages=[{"role": "user", "content": f"more than {len(parts.answer)}"}])

        return Episode()


def config_of(model: Any, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "stop": VOWELS,
        "max_completion_tokens": 40,
        "max_episode_steps": 3,
        "beta": 0.0,
        "max_grad_norm": 1e12,
        "n_epochs": 3,
        "save_state_every": 2,
        "eval_interval": 3,
    }
    return make_config(model, **{**fields, **changes})


def reward(text: str, _item: Any) -> float:
    return len(re.findall("[a-z]", text)) / 10


ROWS, VALID = make_rows("one", "two", "three"), make_rows("four", "five")


def go(config, folder, environment, recorder=None, grade=reward):
    recorder = recorder or ListRecorder()
    grader = FunctionGrader(grade)
    result = train(config, ROWS, VALID, grader, recorder, folder, environment=environment)
    return result, recorder


def sampled_episodes(policy: Policy, config: TrainConfig) -> list[Group]:
    prompts = make_prompts(ROWS, policy.tokenizer, policy.context, "training")
    sampling = Sampling(4, config.max_completion_tokens, 1.0, ("train", 1, 1), stop=config.stop)
    pool = GradePool(FunctionGrader(reward))
    episodes = Episodes(Asking(), reader_of(policy.tokenizer), config, policy)
    try:
        return sample_and_grade(policy, prompts, sampling, pool, Clock(), episodes)
    finally:
        pool.close()
        episodes.close()


def test_the_gradient_is_that_of_a_plain_computation(talking):
    """Sampled tokens alone bear loss: their sum over whole sequences, each run by itself."""
    config = config_of(talking, scale_advantage=False)
    policy = moved(Policy.load(config))
    groups = sampled_episodes(policy, config)
    assert max(len(c.turns) for group in groups for c in group.completions) == 3
    rewards = rewards_of(groups)
    optimizer, weights, found = update.make_optimizer(policy, config), policy.trained(), {}
    optimizer.step = lambda: found.update({name: w.grad.clone() for name, w in weights.items()})
    stats = update.update_policy(policy, optimizer, groups, rewards, config, step=1)

    sampled = [c.n_sampled for group in groups for c in group.completions]
    total = torch.zeros(())
    for group, values in zip(groups, rewards.values, strict=True):
        advantages = values - values.mean()
        for completion, advantage in zip(group.completions, advantages, strict=True):
            logprobs = plain_logprobs(policy.model, PackedCompletion(group.prompt, completion))
            chosen = torch.stack(list(completion.of_sampled(list(logprobs))))
            total = total - float(advantage) * chosen.sum() / sum(sampled)
    total.backward()
    assert sum(float(g.norm()) for g in found.values()) > 1e-3
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-4)
    assert stats.values["ratio/max"] == pytest.approx(1, abs=1e-4) if "ratio/max" in stats.values else True


def test_a_run_killed_in_a_step_and_resumed_has_the_same_history(talking, tmp_path):
    config = config_of(talking)
    whole = Asking()
    _, told = go(config, tmp_path / "whole", whole)
    assert told.series("episodes/train_turns_mean")[0] > 1
    killed = Asking(random_waits(1))
    first = KilledRecorder(after=27)
    with pytest.raises(Killed):
        go(config, tmp_path / "killed", killed, first)
    again = Asking(random_waits(2))
    _, second = go(config, tmp_path / "killed", again)
    history = told.history()
    assert 0 < len(second.history()) < len(history)
    assert {**first.history(), **second.history()} == history
    notes = [message for _, message in second.all("note")]
    assert any("begin anew, with new trace ids" in message for message in notes)
    assert not set(killed.trace_ids) & set(again.trace_ids)


COST = {"user": TokenUsage(7, 3, calls=1)}


class Costly(Asking):
    """Asks a model for each reply; loses some episodes, which has cost as much."""

    def start(self, item: Any, trace_id: str) -> Any:
        asking = super().start(item, trace_id)

        class Episode:
            def reply(self, parts):
                try:
                    return replace(asking.reply(parts), usage=COST)
                except EpisodeLost as lost:
                    raise EpisodeLost(str(lost), COST) from None

        return Episode()


def test_what_replies_cost_counts_as_what_grades_cost_and_is_in_the_budget(talking, tmp_path):
    lose = Costly(lose=lambda parts: len(parts.answer) % 5 == 0)
    config = config_of(talking, grade_failure_limit=1.0, max_judge_calls=50)
    result, told = go(config, tmp_path, lose)
    groups = [group for _, _, _, groups in told.all("rollouts") for group in groups]
    pairs = [p for group in groups for p in zip(group.completions, group.grades, strict=True)]
    assert any(completion.lost for completion, _ in pairs)
    for completion, grade in pairs:
        asked = len(completion.turns) - 1 + bool(completion.lost)
        if completion.finish_reason == "stop":
            assert grade.usage.get("user", TokenUsage()).calls == asked
    spent = told.series(names.TOTAL_USAGE.format(kind="calls", model="user"))
    assert spent[-1] >= 50 > spent[0]
    assert result.steps == 1 < config.total_steps(len(ROWS))


def test_a_model_whose_template_tells_no_parts_talks_with_a_user(tmp_path_factory, tmp_path):
    folder = tmp_path_factory.mktemp("plain")
    make_tiny_model(folder, scale=0.3, context=512)
    _, told = go(config_of(folder, n_epochs=1), tmp_path, Asking())
    assert told.series("episodes/train_turns_mean")[0] > 1
    groups = [group for _, _, _, groups in told.all("rollouts") for group in groups]
    assert told.series("episodes/train_user_turns_mean")[0] > 0
    answers = [turn.parts.answer for g in groups for c in g.completions for turn in c.turns]
    assert any(answers)


def test_lost_episodes_are_left_out_and_named(talking, tmp_path):
    config = config_of(talking, n_epochs=1, grade_failure_limit=1.0)
    environment = Asking(lose=lambda parts: len(parts.answer) % 2 == 0)
    environment.fault = FailureKind.USER_SIMULATOR
    _, told = go(config, tmp_path, environment)
    groups = [group for _, _, _, groups in told.all("rollouts") for group in groups]
    pairs = [p for group in groups for p in zip(group.completions, group.grades, strict=True)]
    lost = [grade for completion, grade in pairs if completion.lost]
    assert 0 < len(lost) < len(pairs)
    assert {grade.failure.kind for grade in lost} == {FailureKind.USER_SIMULATOR}
    assert {grade.reward for grade in lost} == {None}
    assert sum(told.series("episodes/train_lost")) > 0


def test_a_run_pauses_where_its_environment_has_waited_in_vain(talking, tmp_path):
    class Gone(Asking):
        def start(self, item, trace_id):
            class Episode:
                def reply(self, _parts):
                    raise EpisodeLost("it failed", waited_for="The judge 'user' has answered nothing")

            return Episode()

    told = ListRecorder()
    with pytest.raises(JudgeLost):
        go(config_of(talking, n_epochs=1), tmp_path, Gone(), told)
    ((said,),) = told.all("pausing")
    assert "The judge 'user' has answered nothing." in said
