"""Sharded models compute what whole ones do. Here one process is all; test_distributed.py has two."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from workers.training.base.distributed import World
from workers.training.base.errors import ModelInvalid
from workers.training.model import sharding
from workers.training.model.base_model import CPU, load_base

IDS = torch.arange(5, 17).reshape(2, 6)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def tied(sharp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose output layer is its embedding."""
    folder = tmp_path_factory.mktemp("tied")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sharp).save_pretrained(folder)
    return folder


def loss_of(model: Any, pieces: int) -> Tensor:
    """As the engine computes one: the decoder once, the output layer in pieces."""
    states = model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state.flatten(0, 1)
    head = model.get_output_embeddings()
    logits = torch.cat([head(part) for part in states.tensor_split(pieces)]).float()
    return -torch.log_softmax(logits, -1)[:, :50].mean()


def gradients(weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: sharding.whole(weight.grad) for name, weight in weights.items() if weight.grad is not None}


@pytest.mark.parametrize("kind", ["sharp", "tied"])
def test_a_sharded_model_has_the_gradient_of_a_whole_one(
    world: World, kind: str, request: pytest.FixtureRequest
) -> None:
    model: Any = load_base(request.getfixturevalue(kind), adapter="full").model.requires_grad_(True)
    whole = copy.deepcopy(model)
    loss_of(whole, 1).backward()
    wanted = gradients(dict(whole.named_parameters()))
    weights = sharding.shard(model, CPU, world)
    assert all(isinstance(weight, DTensor) for weight in weights.values())
    for _ in range(2):  # gradients of passes add up
        loss_of(model, 3).backward()
    found = gradients(weights)
    assert found.keys() == wanted.keys() == dict(whole.named_parameters()).keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], 2 * gradient, atol=1e-6, rtol=1e-4)


def test_a_sharded_model_in_bf16_keeps_weights_and_gradients_in_fp32(world: World, sharp: Path) -> None:
    model: Any = load_base(sharp, adapter="full").model.requires_grad_(True)
    exact = float(loss_of(model, 1).detach())
    weights = sharding.shard(model, CPU, world, torch.bfloat16)
    loss = loss_of(model, 2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(exact, rel=2e-2)
    assert float(loss.detach()) != exact
    for weight in weights.values():
        assert weight.grad is not None
        assert weight.dtype == weight.grad.dtype == torch.float32


def test_changed_weights_count_only_once_gathered_ones_are_let_go(world: World, sharp: Path) -> None:
    model: Any = load_base(sharp).model
    weights = sharding.shard(model, CPU, world)
    with torch.no_grad():
        before = loss_of(model, 1)
        sharding.close(model)
        head = weights["lm_head.weight"]
        head.copy_(sharding.like(sharding.whole(head) * 2, head))
        assert float(loss_of(model, 1)) != float(before)


def test_clipping_takes_whole_and_sharded_weights_together(world: World, sharp: Path) -> None:
    model: Any = load_base(sharp, adapter="full").model.requires_grad_(True)
    whole = copy.deepcopy(model)
    weights = list(sharding.shard(model, CPU, world).values())
    extras = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for mine, extra in ((weights, extras[0]), (list(whole.parameters()), extras[1])):
        loss_of(model if mine is weights else whole, 1).backward()
        extra.grad = torch.full((3,), 0.5)
    wanted = float(torch.nn.utils.clip_grad_norm_([*whole.parameters(), extras[1]], 0.1))
    assert sharding.clip_gradients([*weights, extras[0]], 0.1) == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(extras[0].grad, extras[1].grad)
    for mine, other in zip(weights, whole.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(sharding.whole(mine.grad), other.grad, atol=1e-6, rtol=1e-4)


def test_a_model_that_cannot_be_sharded_says_why(world: World, sharp: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(sharp)
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ModelInvalid, match="output layer is a Sequential"):
        sharding.shard(model, CPU, world)
