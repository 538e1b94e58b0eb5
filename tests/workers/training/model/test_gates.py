"""The gates of MLPs are made again in the backward pass, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from workers.training.model.gates import gated, remake_gates

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "olmo2", "smollm3", "phi3", "glm")


def model_of(family: str):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def gradients(model) -> list[torch.Tensor]:
    tokens = torch.arange(24).reshape(2, 12)
    model(tokens, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    return [weight.grad for weight in model.parameters()]


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_the_same_bits(family: str) -> None:
    plain = model_of(family)
    remade = copy.deepcopy(plain)
    assert remake_gates(remade) == 2
    tokens = torch.arange(24).reshape(2, 12)
    assert torch.equal(plain(tokens).logits, remade(tokens).logits)
    for one, other in zip(gradients(plain), gradients(remade), strict=True):
        assert torch.equal(one, other)


def kept_by(compute) -> int:
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alive = compute()
    assert alive.requires_grad
    return sum(held.values())


def test_a_gate_keeps_two_tensors_in_place_of_three() -> None:
    gate, up = (torch.randn(8, 16, requires_grad=True) for _ in range(2))
    silu = nn.SiLU()
    assert kept_by(lambda: silu(gate) * up) == 3 * gate.nbytes
    assert kept_by(lambda: gated(silu, gate, up)) == 2 * gate.nbytes


def test_an_mlp_of_another_form_is_left_as_it_is() -> None:
    config = AutoConfig.for_model(
        "gpt2", vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32, pad_token_id=0
    )
    assert remake_gates(AutoModelForCausalLM.from_config(config)) == 0


def test_gates_are_remade_once() -> None:
    model = model_of("llama")
    assert remake_gates(model) == 2
    assert remake_gates(model) == 0
