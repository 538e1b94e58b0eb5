"""The decoder for GPUs, by the plain twins of its operations, against the library's modules."""

import gc
import logging
import weakref
from functools import partial

import numpy as np
import pytest
import torch

from scripts.gpu.as_if_cuda import as_if_cuda
from tests.tiny_model import make_tiny_model
from tests.workers.training.families import VOCABULARY, make_family
from tests.workers.training.sampling.test_decode_attention import (
    CACHE_SIZE,
    MERGED,
    assert_near,
    make_model,
    steps,
)
from tests.workers.training.support import make_config
from workers.training.model.policy import Policy
from workers.training.model.rollout_weights import Branch, FollowingLinear
from workers.training.sampling.decode_attention import decode, prefill
from workers.training.sampling.decode_step import ActiveRows, exact_step
from workers.training.sampling.decoders import slot_cache
from workers.training.sampling.graphed import gpu_decoder
from workers.training.sampling.graphed.gpu_decoder import GpuDecoder, step_function, why_by_modules

ROWS = ActiveRows(
    group=np.array([2, 0, 0, 1]), counts=np.array([1, 1, 1, 1]), prompt_lengths=np.array([9, 1, 30])
)
MOST_KERNELS_A_LAYER = 20


def by_exact_steps(model):
    cache, decoder = slot_cache(model, CACHE_SIZE), GpuDecoder(model)
    return cache, lambda active, ids: decoder.decode(cache, exact_step(active, ids))


@torch.no_grad()
def one_step(model, function):
    """Logits of one decode step, (4, V), by a step function of the model."""
    cache = slot_cache(model, CACHE_SIZE)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, VOCABULARY, (3, 30), generator=generator).to(model.device)
    prefill(model, cache, 0, ids, torch.from_numpy(ROWS.prompt_lengths).to(model.device))
    return function(cache, exact_step(ROWS, ids[0, :4]))


@pytest.mark.parametrize("family", MERGED)
@pytest.mark.parametrize("has_bias", [False, True])
def test_steps_give_the_logits_of_whole_sequences(family, has_bias):
    model = make_model(family)
    if has_bias:
        for layer in model.get_decoder().layers:
            of = layer.self_attn
            for linear in (of.q_proj, of.k_proj, of.v_proj, of.o_proj, layer.mlp.down_proj):
                linear.bias = torch.nn.Parameter(torch.randn(linear.out_features))
    assert_near(steps(model, by_exact_steps))


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(8, 1, 32), (4, 4, 16), (3, 1, 80), (2, 2, 256)])
def test_heads_of_many_widths_and_numbers(heads, kv_heads, head_dim):
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    assert_near(steps(make_model("qwen3", **shape), by_exact_steps))


def test_what_is_decoded_in_inference_mode_can_be_trained_afterwards():
    model = make_family("llama")
    expected = one_step(model, partial(decode, model))
    with torch.inference_mode():
        found = one_step(model, step_function(model))
    torch.testing.assert_close(found.clone(), expected, atol=1e-5, rtol=1e-5)
    model(input_ids=torch.arange(5)[None]).logits.sum().backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.01 * weight.grad
    torch.testing.assert_close(
        one_step(model, step_function(model)), one_step(model, partial(decode, model)), atol=1e-4, rtol=1e-4
    )


def beside(folder, **changes):
    """A bf16 policy whose adapter is small enough to stay beside the base."""
    policy = Policy.load(make_config(folder, dtype="bfloat16", **changes))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 0.001 * torch.randn(weight.shape, generator=generator).to(weight.device)
    policy.sync_rollout()
    return policy


def followers(model):
    return [module for module in model.modules() if isinstance(module, FollowingLinear)]


def distance(found, expected):
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def test_an_adapter_beside_a_bf16_base_joins_in(sharp):
    model = beside(sharp).rollout_model
    for layer in followers(model):
        layer.set_branch(Branch(layer.branch.down, 30 * layer.branch.up))
    expected = one_step(model, partial(decode, model))
    found = one_step(model, step_function(model))
    for layer in followers(model):
        layer.drop_branch()
    without = one_step(model, step_function(model))
    assert distance(found, expected) < 3e-2
    assert distance(without, expected) > 0.2


def test_weights_follow_an_update_where_they_are_and_are_held_once(sharp):
    policy = beside(sharp)
    model = policy.rollout_model
    function = step_function(model)
    decoder = function.decoder
    joined = {j._weight.untyped_storage().data_ptr() for layer in decoder._layers for j in layer.joined}
    own = {layer.weight.untyped_storage().data_ptr() for layer in followers(model)}
    own |= {layer.down.untyped_storage().data_ptr() for layer in followers(model)}
    assert own == joined
    for size in (1.0, 30.0, 0.0):  # beside, summed up, nothing
        with torch.no_grad():
            for name, weight in policy.trained().items():
                if "lora_B" in name:
                    weight *= size
        policy.sync_rollout()
        assert step_function(model) is function
        found, expected = one_step(model, function), one_step(model, partial(decode, model))
        assert distance(found, expected) < 2e-2


def test_weights_that_were_put_elsewhere_are_joined_anew():
    model = make_family("llama")
    before = step_function(model)
    weight = model.get_decoder().layers[0].mlp.up_proj.weight
    weight.data = weight.data * 2
    after = step_function(model)
    assert after is not before
    torch.testing.assert_close(one_step(model, after), one_step(model, partial(decode, model)))


def test_a_decoder_does_not_keep_its_model_alive():
    model = make_family("llama")
    step_function(model)
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("mistral", {}, "MistralModel is none of"),
        ("gpt2", {}, "GPT2Model is none of"),
        ("llama", {"hidden_act": "gelu"}, "gate is 'gelu'"),
        ("qwen3", {"head_dim": 258}, "heads are 258 wide"),
        (
            "qwen3",
            {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1},
            "sliding_attention",
        ),
    ],
)
def test_other_models_are_decoded_by_their_modules_and_the_reason_is_logged(family, changes, reason, caplog):
    model = make_family(family, **changes)
    assert reason in why_by_modules(model)
    with caplog.at_level(logging.WARNING):
        function = step_function(model)
    assert [record.reason for record in caplog.records] == [why_by_modules(model)]
    assert torch.equal(one_step(model, function), one_step(model, partial(decode, model)))


def test_what_is_no_plain_layer_is_decoded_by_modules():
    model = make_family("llama")
    mlp = model.get_decoder().layers[1].mlp
    mlp.up_proj = torch.nn.Sequential(mlp.up_proj)
    assert "Sequential" in why_by_modules(model)


class Broken:
    """Is a decoder whose kernels do not compile."""

    def __init__(self, error):
        self.error, self.calls = error, 0

    def decode(self, cache, step):
        self.calls += 1
        raise self.error


def test_a_decoder_that_fails_gives_way_to_the_modules_once_and_for_all(caplog):
    model = make_family("llama")
    broken = Broken(RuntimeError("Failed to find C compiler"))
    guarded = gpu_decoder._Guarded(model, broken)
    expected = one_step(model, partial(decode, model))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(one_step(model, guarded), expected)
    assert broken.calls == 1
    assert [record.reason for record in caplog.records] == ["RuntimeError: Failed to find C compiler"]


def test_too_little_memory_is_no_fault_of_the_kernels():
    model = make_family("llama")
    with pytest.raises(torch.OutOfMemoryError):
        one_step(model, gpu_decoder._Guarded(model, Broken(torch.OutOfMemoryError())))


@torch.inference_mode()
def kernels(model, device, function):
    """Counts what one decode step launches on the device."""
    cache = slot_cache(model, CACHE_SIZE)
    step = exact_step(ROWS, torch.tensor([3, 4, 5, 6]).to(model.device))
    function(cache, step)
    device.counts.clear()
    function(cache, step)
    return device.counts.kernels.total()


def test_a_layer_with_an_adapter_beside_is_few_kernels_on_a_gpu(tmp_path):
    """Two models that differ by one layer: attention, counted as one operation, is two kernels."""
    ours, theirs = [], []
    for layers in (2, 3):
        folder = make_tiny_model(tmp_path / str(layers), layers=layers, scale=0.3)
        with as_if_cuda() as device:
            model = beside(folder, device="cuda").rollout_model
            assert all(layer.branch is not None for layer in followers(model))
            ours.append(kernels(model, device, step_function(model)))
            theirs.append(kernels(model, device, partial(decode, model)))
    assert ours[1] - ours[0] + 1 == 14 <= MOST_KERNELS_A_LAYER
    assert theirs[1] - theirs[0] > 60
