"""Every template family: rendered, sampled, taken apart, graded, and trained a step, on tokens as sampled.

A random model never closes its thoughts, so a budget does; behind it the grammar holds the answer.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graders import Grade
from graders.build import build_grader
from graders.spec import parse_grader
from methods.train_config import TrainConfig
from tests.chat_templates import TEMPLATES, tokenizer_of
from tests.tiny_model import make_tiny_model
from tests.workers.training.support import make_config
from workers.training import update
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.base_model import BaseModel, load_base
from workers.training.model.policy import Policy
from workers.training.passes.forward import PackedCompletion, completion_states, make_batches, token_logprobs
from workers.training.rendering.conversation import conversation
from workers.training.rendering.ends import template_end_ids
from workers.training.rendering.template import template_of
from workers.training.rewards import GradePool, rewards_of
from workers.training.sampling.rollout import Sampling, sample_groups

TOKENS = 420
"""More than any of the tokenizers has."""
BUDGET = 3
LETTER = {
    "type": "object",
    "properties": {"a": {"enum": ["b", "c"]}},
    "required": ["a"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": LETTER}}
GRADER = parse_grader(
    {
        "type": "string_check",
        "name": "letter",
        "input": "{{sample.output_json.a}}",
        "reference": "{{item.letter}}",
        "operation": "eq",
    }
)
ITEM = {"messages": [{"role": "user", "content": "b or c?"}], "letter": "b"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A random model with room for the tokens of every family."""
    tokenizer = tokenizer_of("qwen3")
    folder: Path = tmp_path_factory.mktemp("families")
    make_tiny_model(
        folder, tokenizer=tokenizer, hidden=16, layers=1, context=4000, scale=0.3, vocabulary=TOKENS
    )
    return load_base(folder)


def config_of(base: BaseModel) -> TrainConfig:
    return make_config(
        base.folder,
        response_format=SCHEMA,
        max_thinking_tokens=BUDGET,
        max_completion_tokens=220,
        adapter="full",
    )


def policy_of(name: str, base: BaseModel) -> Policy:
    tokenizer = tokenizer_of(name)
    ends = tuple({tokenizer.eos_token_id, *template_end_ids(tokenizer)})
    return Policy(replace(base, tokenizer=tokenizer, end_ids=ends), config_of(base))


def sampled(policy: Policy, config: TrainConfig) -> Group:
    template = template_of(policy.tokenizer, None)
    text = template.render(conversation(ITEM), is_open=True)
    prompt = Prompt(0, ITEM, tuple(template.tokens(text)))
    sampling = Sampling(
        config.group_size,
        config.max_completion_tokens,
        1.0,
        ("train", 1, 1),
        grammar=policy.grammar,
        reader=policy.reader,
        thinking_tokens=config.max_thinking_tokens,
    )
    (group,) = sample_groups(policy, [prompt], sampling)
    return group


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_family_is_sampled_taken_apart_graded_and_trained(name: str, base: BaseModel) -> None:
    policy, config = policy_of(name, base), config_of(base)
    group = sampled(policy, config)
    assert [c.finish_reason for c in group.completions] == ["stop"] * config.group_size
    for completion in group.completions:
        assert_taken_apart(policy, group.prompt, completion)
    pool = GradePool(build_grader(GRADER), threads=1)
    (graded,) = pool.grade([group])
    pool.close()
    assert [grade.value for grade in graded.grades] == list(map(wanted, graded.completions))
    assert any(grade.value is not None for grade in graded.grades)
    assert_trainer_agrees(policy, group)
    # the update reads what was sampled, and no other ids
    uneven = replace(graded, grades=tuple(Grade(float(i)) for i in range(config.group_size)))
    before = {key: weight.detach().clone() for key, weight in policy.trained().items()}
    optimizer = update.make_optimizer(policy, config)
    stats = update.update_policy(policy, optimizer, [uneven], rewards_of([uneven]), config, 1)
    assert stats.is_finite
    assert stats.values["ratio/mean"] == pytest.approx(1, abs=1e-6)
    assert stats.values["sampler/mismatch_max"] < 1e-4
    assert any(bool((weight != before[key]).any()) for key, weight in policy.trained().items())


def wanted(completion: Completion) -> float | None:
    """Returns the grade of a completion; None of one that ended while it thought, and so has no JSON."""
    if completion.parts is not None and completion.parts.is_cut_in_thoughts:
        return None
    return float(json.loads(answer_of(completion))["a"] == "b")


def answer_of(completion: Completion) -> str:
    return completion.text if completion.parts is None else completion.parts.answer


def assert_taken_apart(policy: Policy, prompt: Prompt, completion: Completion) -> None:
    """The answer keeps to the schema; only the mark that closed thoughts was given, and it costs nothing."""
    wanted(completion)
    if policy.reader is None or policy.reader.thoughts is None:
        assert completion.given == ()
        return
    parts, start = completion.parts, policy.reader.start(prompt.tokens)
    assert parts is not None
    assert parts.fault is None
    given = [token for token, is_given in zip(completion.tokens, completion.given, strict=False) if is_given]
    has_thought = parts.thought_tokens > 0
    if parts.is_cut_in_thoughts:
        assert (parts.answer, given) == ("", [])
        return
    # it may happen to close them by itself
    assert given in ([], list(policy.reader.thoughts.ending))
    assert has_thought or start != "thoughts"
    assert all(
        logprob == 0
        for logprob, is_given in zip(completion.logprobs, completion.given, strict=False)
        if is_given
    )


def assert_trainer_agrees(policy: Policy, group: Group) -> None:
    """The trainer finds the sampler's masks again, and so its log-probabilities."""
    packed = [PackedCompletion(group.prompt, one) for one in group.completions]
    assert policy.grammar is not None
    for batch in make_batches(packed, 2000, policy.device):
        chosen = [group.completions[i] for i in batch.indices]
        allowed = policy.grammar.allowed(chosen, policy.device, [group.prompt] * len(chosen))
        with torch.no_grad():
            states = completion_states(policy.model, batch)
            head: Any = policy.model.get_output_embeddings()
            logprobs, _ = token_logprobs(states, head, batch.targets, 1.0, allowed)
        drawn = torch.tensor([logprob for one in chosen for logprob in one.sampled_logprobs])
        assert float((logprobs - drawn).abs().max()) < 1e-4
