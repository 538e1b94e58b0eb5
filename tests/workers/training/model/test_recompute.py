"""Layers whose activations are computed again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.workers.training.families import VOCABULARY, add_lora, make_family
from tests.workers.training.passes.test_forward import assert_same, completions_of, gradient, shared_logprobs
from tests.workers.training.passes.test_token_logprobs import saved_bytes
from workers.training.base.errors import ModelInvalid
from workers.training.model.recompute import recompute_layers
from workers.training.passes.forward import why_general

COMPLETIONS = completions_of([(20, [9, 3, 12]), (5, [6, 6])], VOCABULARY, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_recomputing_gives_the_same_gradient_from_fewer_saved_bytes(kind, family):
    def run(recompute):
        model = make_family(family)
        model = add_lora(model) if kind == "lora" else model
        why_general(model)
        if recompute:
            recompute_layers(model)
        kept, logprobs = saved_bytes(lambda: shared_logprobs(model, COMPLETIONS))
        return kept, torch.cat(logprobs), gradient(model, logprobs)

    (kept, logprobs, slope), (kept_less, logprobs_again, slope_again) = run(False), run(True)
    assert kept_less < kept / 2
    assert torch.equal(logprobs_again, logprobs)
    assert_same(slope_again, slope, 1e-6)


def test_dropout_stays_off():
    model = add_lora(make_family("gpt2", attn_pdrop=0.5, resid_pdrop=0.5))
    recompute_layers(model)
    first, second = (gradient(model, shared_logprobs(model, COMPLETIONS)) for _ in range(2))
    assert torch.equal(first, second)


def test_nothing_is_recomputed_without_gradient():
    model = make_family("llama")
    recompute_layers(model)
    calls = []
    model.get_decoder().layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        why_general(model)
        calls.clear()
        shared_logprobs(model, COMPLETIONS)
    assert len(calls) == 1


def test_a_model_without_layers_to_tell_is_refused():
    with pytest.raises(ModelInvalid, match="gradient checkpointing"):
        recompute_layers(nn.Linear(2, 2))
