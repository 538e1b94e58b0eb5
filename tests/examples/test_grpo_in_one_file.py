"""The flat twin of the engine: the same gradient for the same completions, and a reward that rises."""

from __future__ import annotations

import ast
import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from examples import grpo_in_one_file as flat
from tests.tiny_model import make_tiny_model
from tests.workers.training.conftest import moved
from tests.workers.training.support import make_config
from tests.workers.training.test_update import gradients_of, make_groups, make_rewards
from workers.training.losses import policy_loss
from workers.training.model.policy import Policy

SETTINGS: dict[str, Any] = {
    "adapter": "full",
    "algorithm": "grpo",
    "beta": flat.BETA,
    "clip_low": flat.CLIP_LOW,
    "clip_high": flat.CLIP_HIGH,
    "max_grad_norm": 1e12,
    "micro_batch_tokens": 64,
}


def test_its_gradient_on_a_batch_is_the_engines(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, scale=0.3)
    config = make_config(folder, **SETTINGS)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    (expected, *_), stats = gradients_of(policy, groups, rewards, config)
    assert stats.values["kl/reference"] > 1e-3  # the penalty has its part in it

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = copy.deepcopy(reference)
    model.load_state_dict(policy.model.state_dict())
    learnable = []
    for group, values in zip(groups, rewards.values, strict=True):
        prompt = list(group.prompt.tokens)
        completions = [list(completion.tokens) for completion in group.completions]
        with torch.no_grad():
            old, _ = flat.completion_logprobs(model, prompt, completions)
            ref, _ = flat.completion_logprobs(reference, prompt, completions)
        advantages = flat.group_advantages(values.float())
        learnable.append(flat.GradedGroup(prompt, completions, advantages, old, ref))
    n_tokens = sum(len(completion.tokens) for group in groups for completion in group.completions)
    flat.add_gradient(model, learnable, n_tokens)

    found = {name: weight.grad for name, weight in model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()), name


def test_its_loss_beyond_the_clip_bounds_is_the_engines(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    old, ref, moves = -2 * torch.rand(3, 200, generator=generator, dtype=torch.double).log().neg()
    now = (old + 0.4 * moves).requires_grad_()
    advantages = torch.randn(200, generator=generator, dtype=torch.double)
    config = make_config(tmp_path, **SETTINGS)
    engine = policy_loss(now, old, old, ref, advantages, torch.tensor([200]), config)
    assert 20 < int(engine.is_clipped.sum()) < 180
    (expected,) = torch.autograd.grad(engine.loss.sum(), now)
    loss = flat.token_losses(now, old, ref, advantages)
    torch.testing.assert_close(loss, engine.loss, rtol=1e-12, atol=0)
    (found,) = torch.autograd.grad(loss.sum(), now)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"city": "Bangor", "state": "Maine"}', 1.0),
        ('{"city": "Bangor", "state": "ME"}', 0.5),
        ('["Bangor", "Maine"]', 0.0),
        ('{"city": "Bangor", ', 0.0),
        ("", 0.0),
    ],
)
def test_its_reward_is_the_share_of_fields_that_are_right(text: str, expected: float) -> None:
    assert flat.reward(text, {"city": "Bangor", "state": "Maine"}) == expected


def test_it_needs_torch_and_transformers_and_fits_on_three_screens() -> None:
    source = Path(flat.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "transformers"}


@pytest.mark.long
def test_the_reward_rises() -> None:
    history = flat.main()
    assert sum(history[-3:]) / 3 > sum(history[:2]) / 2 + 0.2
