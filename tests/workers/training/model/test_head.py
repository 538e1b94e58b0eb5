"""Logits from states, as the model itself makes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.workers.training.families import make_family
from workers.training.base.errors import ModelInvalid
from workers.training.model.head import OwnHead, output_head
from workers.training.model.parts import decoder_of

SCALED: dict[str, dict[str, Any]] = {
    "granite": {"num_key_value_heads": 2, "logits_scaling": 8.0},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0},
}
IDS = torch.arange(3, 20)[None]


@pytest.mark.parametrize("family", SCALED)
@torch.no_grad()
def test_logits_that_are_scaled_or_capped_are_the_models_own(family: str) -> None:
    model = make_family(family, "eager", **SCALED[family])
    states = decoder_of(model)(input_ids=IDS).last_hidden_state
    expected = model(input_ids=IDS).logits
    head = output_head(model)
    assert isinstance(head, OwnHead)
    torch.testing.assert_close(head(states), expected)
    torch.testing.assert_close(head(states[0, 3:5]), expected[0, 3:5])
    assert not torch.allclose(model.get_output_embeddings()(states), expected, atol=1e-2)


def test_a_plain_head_is_the_output_layer_itself() -> None:
    model = make_family("llama", num_key_value_heads=2)
    assert output_head(model) is model.get_output_embeddings()


@torch.no_grad()
def test_a_copy_has_a_head_of_its_own_and_a_replaced_forward_is_passed_by() -> None:
    model = make_family("granite", "eager", **SCALED["granite"])
    output_head(model)
    copied = copy.deepcopy(model)
    copied.get_output_embeddings().weight *= 2
    copied.forward = model.forward  # as TRL leaves it: bound to something else
    states = decoder_of(copied)(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(output_head(copied)(states), 2 * output_head(model)(states))


def test_gradients_reach_states_and_output_layer() -> None:
    model = make_family("gemma2", "eager", **SCALED["gemma2"])
    states = torch.randn(5, 32, requires_grad=True)
    output_head(model)(states).logsumexp(-1).sum().backward()
    assert states.grad is not None
    assert states.grad.abs().sum() > 0
    assert model.get_output_embeddings().weight.grad.abs().sum() > 0


def test_logits_that_the_states_do_not_decide_are_refused() -> None:
    model = make_family("llama", num_key_value_heads=2)
    whole = model.forward

    def noisy(*args: Any, **kwargs: Any) -> Any:
        found = whole(*args, **kwargs)
        found.logits = found.logits + torch.randn(found.logits.shape[-1])
        return found

    model.forward = noisy
    with pytest.raises(ModelInvalid, match="does not make its logits of its decoder's last states"):
        output_head(model)


def test_a_model_without_an_output_layer_is_refused() -> None:
    model = make_family("llama", num_key_value_heads=2)
    model.get_output_embeddings = lambda: None
    with pytest.raises(ModelInvalid, match="no output layer"):
        output_head(model)


def test_the_decoder_is_found_where_transformers_takes_something_else_for_it() -> None:
    model = make_family("modernbert-decoder", "eager")
    assert isinstance(model.get_decoder(), nn.Linear)
    assert decoder_of(model) is model.model
