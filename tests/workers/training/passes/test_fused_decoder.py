"""The fused forward against the library's modules, and where it steps back."""

from __future__ import annotations

import pytest
import torch
from transformers.activations import SiLUActivation

from tests.workers.training.families import VOCABULARY, add_lora, make_family
from tests.workers.training.passes.test_forward import (
    CPU,
    assert_same,
    completions_of,
    gradient,
    shared_logprobs,
)
from workers.training.passes.forward import completion_states, make_batches
from workers.training.passes.fused_decoder import is_known

FAMILIES = ["llama", "qwen2", "qwen3"]
COMPLETIONS = completions_of([(9, [5, 3, 1]), (4, [6, 2])], VOCABULARY, torch.Generator().manual_seed(6))


FUSED_NODES = {"_NormBackward", "_AddAndNormBackward", "_GatedBackward"}


def nodes(tensors):
    """Names of all nodes of the autograd graph behind some tensors."""
    waiting, seen = [tensor.grad_fn for tensor in tensors], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradient_are_those_of_the_modules(family, kind):
    model = make_family(family)
    model = add_lora(model) if kind == "lora" else model
    fused = shared_logprobs(model, COMPLETIONS)
    slope = gradient(model, fused)
    assert nodes(fused) >= FUSED_NODES
    overridden(model)
    by_modules = shared_logprobs(model, COMPLETIONS)
    assert not FUSED_NODES & nodes(by_modules)
    assert_same(torch.cat(fused), torch.cat(by_modules))
    assert_same(slope, gradient(model, by_modules))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layers_mlp_runs_for_predicting_tokens_alone_and_the_others_for_all(family):
    model = make_family(family)
    (batch,) = make_batches(COMPLETIONS, 10**6, CPU)
    completion_states(model, batch)  # the trial run
    rows = []
    for layer in model.get_decoder().layers:
        layer.mlp.down_proj.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[0]))
    completion_states(model, batch)
    predicting = len(set(batch.predictors.tolist()))
    assert predicting < batch.n_forwarded
    assert rows == [batch.n_forwarded, predicting]


def hooked(model):
    model.get_decoder().layers[0].mlp.register_forward_hook(lambda *_: None)


def overridden(model):
    """From now on the model is run by its modules."""
    norm = model.get_decoder().norm
    norm.forward = norm.forward


def derived(model):
    norm = model.get_decoder().norm
    norm.__class__ = type("Another", (type(norm),), {})


@pytest.mark.parametrize("touch", [hooked, overridden, derived, lambda model: model.bfloat16()])
def test_a_model_that_is_not_quite_the_librarys_is_run_by_its_modules(touch):
    model = make_family("llama")
    assert is_known(model.get_decoder())
    touch(model)
    assert not is_known(model.get_decoder())


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "gpt2"])
def test_other_families_are_run_by_their_modules(family):
    assert not is_known(make_family(family).get_decoder())


def test_autocast_is_left_to_the_modules():
    decoder = make_family("llama").get_decoder()
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_known(decoder)


class Mirrored(SiLUActivation):
    """An activation that passes for SiLU and is another."""

    def forward(self, x):
        return super().forward(-x)


def test_a_fused_forward_that_is_wrong_is_found_out_and_told(caplog):
    model = make_family("llama")
    for layer in model.get_decoder().layers:
        layer.mlp.act_fn = Mirrored()
    assert is_known(model.get_decoder())
    logprobs = shared_logprobs(model, COMPLETIONS)
    assert "decoder_not_fused" in caplog.text
    assert not FUSED_NODES & nodes(logprobs)
    overridden(model)
    assert torch.equal(torch.cat(logprobs), torch.cat(shared_logprobs(model, COMPLETIONS)))
