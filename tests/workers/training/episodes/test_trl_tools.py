"""Episodes beside TRL's own loop of tools: the same tokens given, and the same gradient. TRL is the oracle.

TRL renders, calls, appends, masks and scores by itself; only the model's turns are set, so that they call.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import get_json_schema

from methods.rows import Row
from tests.chat_templates import tokenizer_of
from tests.tiny_model import make_tiny_model
from tests.workers.training.conftest import moved
from tests.workers.training.support import make_config
from tests.workers.training.test_trl import ALGORITHMS, pytestmark
from tests.workers.training.trl_side import (
    CLIP_HIGH,
    CLIP_LOW,
    apart,
    gradients,
    groups_of_tools,
    make_trainer,
    our_gradient,
    their_model,
)
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rendering.between import tokens_between
from workers.training.rewards import Rewards

__all__ = ["pytestmark"]

LIMIT = 1000
END = "<|im_end|>"


def look_up(key: str) -> str:
    """Tells the number of a letter.

    Args:
        key: the letter.
    """
    return f"{key} has {ord(key)}"


def calling(*keys: str) -> str:
    calls = (f'{{"name": "look_up", "arguments": {{"key": "{key}"}}}}' for key in keys)
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls) + END


# What the rollouts of a group write, turn by turn, and which keys each but the last calls with.
TURNS = [
    [f"It is 7.{END}"],
    [calling("a"), f"97{END}"],
    [calling("b", "c"), f"98 and 99, so{END}"],
    [calling("d"), calling("e"), f"100, then 101{END}"],
]
KEYS: list[list[str]] = [[], ["a"], ["bc"], ["d", "e"]]
ROWS = [
    Row(line, {"messages": [{"role": "user", "content": text}], "tools": [get_json_schema(look_up)]})
    for line, text in enumerate(["What is it?", "Say the numbers of some letters."], 1)
]
P, G = len(ROWS), len(TURNS)
REWARDS = torch.rand(P, G, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A random model with Qwen's template, whose turns end as that says."""
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    tokenizer.eos_token = END
    folder = tmp_path_factory.mktemp("calls")
    return make_tiny_model(folder, scale=0.1, context=2048, tokenizer=tokenizer)


def looking_up(model: Path, folder: Path, rewards: torch.Tensor, **settings: Any) -> Any:
    """A trainer with the tool, in which each group writes `TURNS`."""
    trainer = make_trainer(
        "GRPO",
        model,
        folder,
        lambda **_: rewards.flatten().tolist(),
        prompts=[row.item["messages"] for row in ROWS],
        tools=[look_up],
        per_device_train_batch_size=P * G,
        num_generations=G,
        max_completion_length=LIMIT,
        temperature=1.0,
        **settings,
    )
    turn = itertools.count()

    def generate(*_: Any, **__: Any) -> tuple[list[list[int]], None]:
        """The next turn of all that have one, in their order."""
        place = next(turn)
        texts = [written[place] for written in P * TURNS if len(written) > place]
        return [trainer.processing_class(text)["input_ids"] for text in texts], None

    trainer._generate_single_turn = generate
    return trainer


def scored(trainer: Any) -> Any:
    """What TRL's loss is given."""
    return trainer._generate_and_score_completions(
        [{"prompt": row.item["messages"]} for row in ROWS for _ in range(G)]
    )


def prompts_of(policy: Policy) -> Any:
    return make_prompts(ROWS, policy.tokenizer, policy.context, "training")


def test_what_tools_write_is_given_as_trls_loop_gives_it(calls, tmp_path):
    """Token by token: the prompts, and all that stands between the turns."""
    policy = Policy.load(make_config(calls))
    inputs = scored(looking_up(calls, tmp_path, REWARDS))
    prompts = prompts_of(policy)
    for row, (ids, mask) in enumerate(zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)):
        assert tuple(ids[mask.bool()].tolist()) == prompts[row // G].tokens
    (end_id,) = policy.tokenizer(END)["input_ids"]
    for group in groups_of_tools(policy, prompts, inputs):
        for completion, turns, keys in zip(group.completions, TURNS, KEYS, strict=True):
            expected: list[tuple[int, bool]] = []
            for turn, called in itertools.zip_longest(turns, keys):
                expected += [(token, False) for token in policy.tokenizer(turn)["input_ids"]]
                results = [
                    {"role": "tool", "name": "look_up", "content": look_up(key)} for key in called or ()
                ]
                if results:
                    names = ["look_up"] * len(results)
                    between = tokens_between(policy.tokenizer, group.prompt.item, names, results, end_id)
                    expected += [(token, True) for token in between]
            assert list(zip(completion.tokens, completion.given, strict=True)) == expected


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_of_episodes_is_that_of_trls_loop(calls, tmp_path, algorithm):
    """Both round in fp32: each is up to 6e-6 from the gradient in fp64, and an element 2e-7."""
    ours, theirs = ALGORITHMS[algorithm]
    beta = 0.04 if algorithm == "dapo" else 0.0
    clip = {"clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, **ours}
    same = {"adapter": "full", "beta": beta, "max_completion_tokens": LIMIT, "max_grad_norm": 1e12}
    config = make_config(calls, **{**same, **clip})
    policy = moved(Policy.load(config))
    # Where they are scaled they are large, so that the 1e-4 that TRL adds to standard deviations is nothing.
    rewards = REWARDS if theirs.get("scale_rewards") == "none" else 1000 * REWARDS
    trainer = looking_up(calls, tmp_path, rewards, beta=beta, **theirs)
    model, weights = their_model(policy, trainer, "full")
    inputs = scored(trainer)
    expected = gradients(trainer._compute_loss(model, inputs), weights)
    groups = groups_of_tools(policy, prompts_of(policy), inputs)
    graded = Rewards(rewards, torch.ones(P, G, dtype=torch.bool))
    found = our_gradient(policy, groups, graded, config)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=0)
    assert apart(found, expected) < 1e-5
    if beta:
        unmasked = inputs | {"tool_mask": torch.ones_like(inputs["tool_mask"])}
        assert apart(found, gradients(trainer._compute_loss(model, unmasked), weights)) > 0.1
