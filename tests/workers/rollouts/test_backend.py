"""Rollouts from a server that speaks vLLM's routes: what is asked and believed, and what faults come to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.table_settings import VllmEntry
from tests.workers.rollouts.vllm_server import CUT, FakeVllm, Fault, logits_of, running
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.rollouts.backend import Limits, VllmRollouts
from workers.rollouts.errors import RolloutsRefused
from workers.training.base.distributed import ALONE
from workers.training.base.errors import JudgeLost
from workers.training.base.types import Completion, Prompt
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.sampling.backend import SamplingInterrupted
from workers.training.sampling.rollout import Sampling
from workers.training.sampling.turns import GoesOn, Over

RUN = "ftjob-1-seed-1"
SAMPLING = Sampling(3, 6, 0.7, ("train", 1, 1))
SOON = Limits(away=30.0, again=0.01)


@pytest.fixture(scope="module")
def policy(tiny: Path) -> Policy:
    return Policy.load(make_config(tiny))


@pytest.fixture
def prompts(policy: Policy) -> list[Prompt]:
    return make_prompts(make_rows("a", "b"), policy.tokenizer, policy.context, "training", policy.vocabulary)


@pytest.fixture
def server(policy: Policy) -> Iterator[FakeVllm]:
    with running(fake(policy)) as server:
        yield server


def fake(policy: Policy) -> FakeVllm:
    """A server of the policy's base."""
    base = AutoModelForCausalLM.from_pretrained(policy.folder, dtype=torch.float32)
    return FakeVllm(policy.vocabulary, logits_of(base), str(policy.folder))


def backend(
    server: FakeVllm, policy: Policy, tmp_path: Path, limits: Limits = SOON, **entry: Any
) -> VllmRollouts:
    entry = {"url": server.url, "adapters": tmp_path / "adapters", "answer_seconds": 5.0, **entry}
    config = make_config(policy.folder)
    return VllmRollouts(VllmEntry(**entry), RUN, policy, config, ALONE, ListRecorder(), SOON)


def change(path: list[Any], value: Any) -> Fault:
    """A fault that puts another value into a reply."""

    def fault(reply: Any) -> Any:
        place = reply
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return reply

    return fault


CHOICE = ["choices", 0]


def cut_early(reply: Any) -> Any:
    """One token, which is said to be cut at the limit."""
    one = {"token_ids": [5], "finish_reason": "length", "logprobs": {"content": [{"logprob": -1.0}]}}
    return reply | {"choices": [one]}


FAULTS = {
    "500": lambda _: 500,
    "503": lambda _: 503,
    "429": lambda _: 429,
    "cut": lambda _: CUT,
    "not an object": lambda _: [1, 2],
    "no choice": change(["choices"], []),
    "other weights": change(["model"], "tiny"),
    "aborted": change([*CHOICE, "finish_reason"], "abort"),
    "too long": change([*CHOICE, "token_ids"], [5] * 7),
    "no tokens": change([*CHOICE, "token_ids"], []),
    "cut early": cut_early,
    "out of range": change([*CHOICE, "token_ids", 0], 10**6),
    "negative": change([*CHOICE, "token_ids", 0], -1),
    "no number": change([*CHOICE, "token_ids", 0], "5"),
    "missing logprobs": change([*CHOICE, "logprobs"], None),
    "short logprobs": change([*CHOICE, "logprobs", "content"], []),
    "not finite": change([*CHOICE, "logprobs", "content", 0, "logprob"], -9999.0),
    "above 0": change([*CHOICE, "logprobs", "content", 0, "logprob"], 0.5),
    "of other tokens": change([*CHOICE, "logprobs", "content", 0, "token_id"], 10**6),
    "two versions": change([*CHOICE, "weight_versions"], [{"version": "a"}, {"version": "b"}]),
    "ends without an end": change([*CHOICE, "finish_reason"], "stop"),
}


def test_what_comes_back_is_a_group_for_each_prompt(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    told: list[tuple[int, int]] = []
    groups = rollouts.sample(prompts, SAMPLING, lambda i, sample, _: told.append((i, sample)))
    assert sorted(told) == [(i, sample) for i in range(2) for sample in range(3)]
    for group in groups:
        for completion in group.completions:
            assert len(completion.tokens) == len(completion.logprobs) <= 6
            assert (completion.finish_reason == "stop") == (completion.tokens[-1] in policy.end_ids)
            assert completion.sampled_by.startswith(f"{RUN}-after-000000-")
    asked = [body for body in server.of("/inference/v1/generate") if body["sampling_params"]["logprobs"] == 0]
    seeds = [body["sampling_params"]["seed"] for body in asked]
    assert len(set(seeds)) == 6
    assert max(seeds) < 2**63
    assert {tuple(body["token_ids"]) for body in asked} == {prompt.tokens for prompt in prompts}
    assert rollouts.sample(prompts, SAMPLING) == groups


def test_the_adapter_is_what_peft_would_write(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    rollouts.sample(prompts, SAMPLING)
    ((_, folder),) = server.loaded.items()
    policy.save_adapter(tmp_path / "peft")
    expected = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    ours, peft = (
        json.loads((place / "adapter_config.json").read_text()) for place in (folder, tmp_path / "peft")
    )
    assert [ours[name] for name in ("r", "lora_alpha")] == [peft[name] for name in ("r", "lora_alpha")]


def test_adapters_go_by_step_and_the_old_ones_with_their_files(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    before = {name: weight.detach().clone() for name, weight in policy.trained().items()}
    names = []
    try:
        for step in range(3):
            policy.load_trained({name: weight + 0.1 * step for name, weight in before.items()})
            rollouts.follow(step)
            rollouts.sample(prompts, SAMPLING)
            (name,) = server.loaded
            names.append(name.split("-after-")[1].partition("-")[0])
            assert [folder.name for folder in (tmp_path / "adapters" / RUN).iterdir()] == [name]
    finally:
        policy.load_trained(before)
    assert names == ["000000", "000001", "000002"]
    rollouts.close()
    assert not server.loaded
    assert not (tmp_path / "adapters" / RUN).exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_reply_breaks_the_whole_call_off(server, policy, prompts, tmp_path, fault):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    server.faults = [lambda reply: reply, FAULTS[fault]]
    with pytest.raises(SamplingInterrupted):
        rollouts.sample(prompts, SAMPLING)
    assert not server.faults
    assert rollouts.recover(lambda: None) == ""
    assert [len(group.completions) for group in rollouts.sample(prompts, SAMPLING)] == [3, 3]


def test_a_server_that_started_anew_is_given_the_adapter_again(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    expected = rollouts.sample(prompts, SAMPLING)
    server.loaded.clear()
    with pytest.raises(SamplingInterrupted, match="does not exist"):
        rollouts.sample(prompts, SAMPLING)
    rollouts.recover(lambda: None)
    assert rollouts.sample(prompts, SAMPLING) == expected


def test_raw_logprobs_are_refused_at_the_start_and_after_a_restart(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    rollouts.sample(prompts, SAMPLING)
    server.is_raw = True
    server.faults = [lambda _: 500]
    with pytest.raises(SamplingInterrupted):
        rollouts.sample(prompts, SAMPLING)
    rollouts.recover(lambda: None)
    with pytest.raises(RolloutsRefused, match="--logprobs-mode processed_logprobs"):
        rollouts.sample(prompts, SAMPLING)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        pytest.param({"key": "wrong"}, "refuses the key", id="key"),
        pytest.param({"model": "other"}, "and not other", id="model"),
    ],
)
def test_a_server_that_is_set_up_otherwise_is_refused(server, policy, prompts, tmp_path, entry, words):
    server.key = "right" if "key" in entry else ""
    rollouts = backend(server, policy, tmp_path, **entry)
    rollouts.follow(0)
    with pytest.raises(RolloutsRefused, match=words):
        rollouts.sample(prompts, SAMPLING)


def test_an_adapter_of_a_higher_rank_than_the_server_takes_is_refused(server, policy, prompts, tmp_path):
    server.most_rank = 1
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    with pytest.raises(RolloutsRefused, match=r"max_lora_rank 1\..* --max-lora-rank is at least the job's"):
        rollouts.sample(prompts, SAMPLING)


def test_an_adapter_that_the_server_does_not_find_is_refused(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    shutil.rmtree(tmp_path / "adapters")
    with pytest.raises(RolloutsRefused, match=r"No adapter found.* See that it reads"):
        rollouts.sample(prompts, SAMPLING)


def test_the_key_is_sent(server, policy, prompts, tmp_path):
    server.key = "right"
    rollouts = backend(server, policy, tmp_path, key="right")
    rollouts.follow(0)
    assert len(rollouts.sample(prompts, SAMPLING)) == 2


class Rounds:
    """Lets each completion go on with one token more until it has had so many turns."""

    def __init__(self, prompts: list[Prompt], turns: int) -> None:
        self.prompts, self.turns = prompts, turns
        self.come: list[GoesOn | Over] = []
        self.had: dict[tuple[int, int], list[Completion]] = {}

    @property
    def are_open(self) -> bool:
        return bool(self.come)

    def end(self, prompt: int, sample: int, written: Completion) -> None:
        had = self.had.setdefault((prompt, sample), [])
        had.append(written)
        if len(had) == self.turns:
            self.come.append(Over(prompt, sample, written))
        else:
            tokens = (*self.prompts[prompt].tokens, *written.tokens, 7)
            self.come.append(GoesOn(prompt, sample, tokens, len(written.tokens) + 1, 3, len(had)))

    def next(self, *, wait: bool) -> list[GoesOn | Over]:
        assert self.come or not wait
        come, self.come = self.come, []
        return come


def test_each_turn_of_an_episode_is_a_request_that_goes_on_from_what_was_replied(
    server, policy, prompts, tmp_path
):
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    turns, told = Rounds(prompts, 3), []
    groups = rollouts.sample(prompts, SAMPLING, lambda *found: told.append(found[:2]), turns)
    assert sorted(told) == [(i, sample) for i in range(2) for sample in range(3)]
    assert all(len(had) == 3 for had in turns.had.values())
    assert all(one.sampled_by.startswith(RUN) for group in groups for one in group.completions)
    asked = [body for body in server.of("/inference/v1/generate") if body["sampling_params"]["logprobs"] == 0]
    assert len({body["sampling_params"]["seed"] for body in asked}) == len(asked) == 18
    first = {tuple(prompt.tokens) for prompt in prompts}
    for body in asked:
        is_first = tuple(body["token_ids"]) in first
        assert body["sampling_params"]["max_tokens"] == (6 if is_first else 3)
        assert is_first or body["token_ids"][-1] == 7


def test_a_server_of_another_model_is_refused_by_what_it_computes(server, policy, prompts, tmp_path):
    server.logits = lambda _: [token / 50 for token in range(server.vocabulary)]
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    with pytest.raises(RolloutsRefused, match=r"does not compute this policy.*same base model"):
        rollouts.sample(prompts, SAMPLING)


def test_a_server_that_rounds_more_than_the_trainer_is_named(server, policy, prompts, tmp_path):
    recorder, exact = ListRecorder(), server.logits
    server.logits = lambda tokens: [value + i / 5000 for i, value in enumerate(exact(tokens))]
    entry = VllmEntry(url=server.url, adapters=tmp_path / "adapters")
    rollouts = VllmRollouts(entry, RUN, policy, make_config(policy.folder), ALONE, recorder, SOON)
    rollouts.follow(0)
    rollouts.sample(prompts, SAMPLING)
    assert any(level == "warn" and "--dtype float32" in said for level, said in recorder.all("note"))


def test_a_server_with_another_tokenizer_is_refused_where_it_looks_for_stop_strings(
    server, policy, prompts, tmp_path
):
    server.tokenizer = lambda text: {"input_ids": [1, 2, 3]}
    rollouts = backend(server, policy, tmp_path)
    rollouts.follow(0)
    with pytest.raises(RolloutsRefused, match="reads text otherwise"):
        rollouts.sample(prompts, replace(SAMPLING, stop=("a",)))


def test_a_server_on_the_trainers_gpu_sleeps_between_samplings(server, policy, prompts, tmp_path):
    rollouts = backend(server, policy, tmp_path, shares_gpu=True)
    rollouts.follow(0)
    rollouts.sample(prompts, SAMPLING)
    rollouts.rest()
    assert server.is_asleep
    rollouts.follow(1)
    assert not server.is_asleep
    with pytest.raises(RolloutsRefused, match="this machine alone"):
        backend(server, policy, tmp_path, url="http://vllm.example:8000", shares_gpu=True).rest()


def test_a_run_trains_on_what_the_server_sampled(server, tiny, tmp_path):
    recorder = ListRecorder()
    train_with(server, tiny, tmp_path, recorder)
    by_step = {step: groups for split, step, _, groups in recorder.all("rollouts") if split == "train"}
    for step, groups in by_step.items():
        names = {completion.sampled_by for group in groups for completion in group.completions}
        assert [name.split("-after-")[1][:6] for name in names] == [f"{step - 1:06d}"]
    assert any("vLLM 0.32.0" in message for _, message in recorder.all("note"))
    assert not server.loaded


@pytest.mark.long
def test_a_step_that_broke_off_is_sampled_again_with_the_same_history(server, tiny, tmp_path):
    whole, broken = ListRecorder(), ListRecorder()
    train_with(server, tiny, tmp_path / "whole", whole)
    server.faults = [*[lambda reply: reply] * 9, lambda _: 500, *[lambda reply: reply] * 3, lambda _: CUT]
    train_with(server, tiny, tmp_path / "broken", broken)
    assert not server.faults
    assert broken.history() == whole.history()


@pytest.mark.slow
@pytest.mark.parametrize("async_steps", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_server_that_stays_away_pauses_the_run_which_then_goes_on(policy, tiny, tmp_path, async_steps):
    whole, first, second = ListRecorder(), ListRecorder(), ListRecorder()
    with running(fake(policy)) as server:
        train_with(server, tiny, tmp_path / "whole", whole, async_steps=async_steps)
    failing = fake(policy)
    failing.faults = [*[lambda reply: reply] * 10, *[lambda _: 500] * 10**4]
    with running(failing), pytest.raises(JudgeLost):
        train_with(failing, tiny, tmp_path / "cut", first, Limits(0.2, 0.01), async_steps=async_steps)
    ((said,),) = first.all("pausing")
    assert "has done no rollouts" in said
    assert "EngineCore" in said
    with running(fake(policy)) as server:
        train_with(server, tiny, tmp_path / "cut", second, async_steps=async_steps)
    assert {**first.history(), **second.history()} == whole.history()


def train_with(
    server: FakeVllm,
    tiny: Path,
    folder: Path,
    recorder: ListRecorder,
    limits: Limits = SOON,
    **config: Any,
) -> None:
    """A run of three steps, a state saved after each."""
    entry = VllmEntry(url=server.url, adapters=folder.parent / "adapters", answer_seconds=5.0)
    chosen = make_config(
        tiny, n_epochs=3, prompts_per_step=2, kl_probe_size=1, save_state_every=1, eval_interval=3, **config
    )

    def opened(*run: Any) -> VllmRollouts:
        *run, _arm = run
        return VllmRollouts(entry, RUN, *run, limits)

    grader = FunctionGrader(partial(early_letters))
    train(chosen, make_rows(*"ab"), [], grader, recorder, folder, rollouts=opened)
