"""A LoRA layer beside a base in bf16 is as near the exact gradient as the base's products, and keeps less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scripts.gpu.as_if_cuda import as_if_cuda
from tests.workers.training.families import make_family
from tests.workers.training.passes.test_forward import completions_of, gradient, shared_logprobs
from tests.workers.training.support import make_config
from workers.training.model.adapter import add_adapter
from workers.training.model.half_lora import HalfForward, wide_product
from workers.training.model.merged_lora import train_through_sum
from workers.training.model.policy import Policy
from workers.training.model.quantised import quantise
from workers.training.model.stored_types import StoredTypes

NEAR = 2
"""How many times the rounding of the base's own products that of the branch may be."""


def adapted(model: Any, is_half: bool) -> Any:
    """Returns a model with an adapter that does something already, by PEFT's forward or ours."""
    add_adapter(model, make_config("model", lora_rank=4))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
        if "lora_" in name:
            weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    for layer in model.modules():
        if is_half and hasattr(layer, "lora_A"):
            train_through_sum(layer, layer.get_base_layer())
    return model


def one_layer(is_half: bool, bias: bool = True) -> Any:
    torch.manual_seed(0)
    model = make_family("qwen2", "eager", hidden_size=256, num_hidden_layers=1).bfloat16()
    if not bias:
        model.model.layers[0].self_attn.q_proj.bias = None
    layers = adapted(model, is_half).named_modules()
    return next(layer for name, layer in layers if name.endswith("q_proj"))


def quantised_layer(precision: str) -> tuple[Any, Tensor]:
    """Returns a layer beside a quantised base, and the weight that its base multiplies by, (O, I)."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")
    torch.manual_seed(0)
    model = make_family("qwen2", "eager", hidden_size=256, num_hidden_layers=1)
    types = StoredTypes(torch.bfloat16, {})
    quantise(model, precision, torch.device("cpu"), torch.bfloat16, types)
    layers = adapted(model, is_half=True).named_modules()
    layer: Any = next(layer for name, layer in layers if name.endswith("q_proj"))
    return layer, layer.get_base_layer().packed.weight(torch.bfloat16)


def exact(layer: Any, weight: Tensor, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Returns output and gradients of x, A and B in fp64; `weight` is the base's, (O, I)."""
    base = layer.get_base_layer()
    a, b = (
        each["default"].weight.detach().double().requires_grad_() for each in (layer.lora_A, layer.lora_B)
    )
    x = x.detach().double().requires_grad_()
    bias = None if base.bias is None else base.bias.double()
    out = nn.functional.linear(x, weight.double(), bias) + x @ a.T @ b.T * layer.scaling["default"]
    return [out.detach(), *torch.autograd.grad(out, [x, a, b], grad.double())]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradients_are_as_near_the_exact_ones_as_the_bases_products(bias: bool) -> None:
    layer = one_layer(is_half=True, bias=bias)
    check_near_exact(layer, layer.get_base_layer().weight.detach())


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_beside_a_quantised_base_they_are_too(precision: str) -> None:
    check_near_exact(*quantised_layer(precision))


def check_near_exact(layer: Any, base: Tensor) -> None:
    assert isinstance(layer.forward, HalfForward)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 40, 256, generator=generator).bfloat16().requires_grad_()
    out = layer(x)
    grad = torch.randn(out.shape, generator=generator).bfloat16()
    weights = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    found = [out, *torch.autograd.grad(out, weights, grad)]
    assert [each.dtype for each in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    of_base = error(x.detach() @ base.T, x.detach().double() @ base.double().T)
    for mine, theirs in zip(found, exact(layer, base, x, grad), strict=True):
        assert error(mine, theirs) < NEAR * of_base


def kept_bytes(model: Any, ids: Tensor) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model(input_ids=ids).logits
    assert states.requires_grad
    return sum(kept.values())


def test_a_third_less_is_kept_of_a_layers_activations() -> None:
    ids = torch.arange(90)[None]
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2}
    theirs, mine = (
        kept_bytes(adapted(make_family("llama", **sizes).bfloat16(), way), ids) for way in (False, True)
    )
    assert mine < 2 / 3 * theirs


def test_the_gradient_of_a_model_is_no_further_from_the_exact_one_than_pefts() -> None:
    packed = completions_of([(9, [5, 3, 1]), (4, [6, 2])], 97, torch.Generator().manual_seed(6))
    wide = adapted(make_family("llama").bfloat16().float(), False)
    expected = gradient(wide, shared_logprobs(wide, packed))
    errors = []
    for is_half in (False, True):
        model = adapted(make_family("llama").bfloat16(), is_half)
        errors.append(error(gradient(model, shared_logprobs(model, packed)), expected.double()))
    theirs, mine = errors
    assert mine < 1.5 * theirs


def test_a_policy_in_bf16_trains_this_way_and_its_reference_is_the_base(sharp: Any) -> None:
    policy = Policy.load(make_config(sharp, dtype="bfloat16"))
    layers = [layer for layer, _ in policy._merged]
    assert all(isinstance(layer.forward, HalfForward) for layer in layers)
    ids = torch.arange(20)[None]
    with policy.adapter.disable_adapter(), torch.no_grad():
        expected = policy.model(input_ids=ids).logits
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 0.1
    with policy.reference() as model:
        assert torch.equal(model(input_ids=ids).logits, expected)
        assert not any(layer.disable_adapters for layer in layers)
    assert not torch.equal(policy.model(input_ids=ids).logits, expected)


def test_a_product_of_sixteen_bits_in_fp32_keeps_to_what_it_declares() -> None:
    left, right = torch.randn(3, 50).bfloat16(), torch.randn(50, 4).bfloat16()
    torch.testing.assert_close(wide_product(left, right), left.float() @ right.float())
    torch.library.opcheck(wide_product, (left, right), test_utils=("test_schema", "test_faketensor"))
    with as_if_cuda():
        found = wide_product(left.to("cuda"), right.to("cuda"))
        assert found.is_cuda
        assert found.dtype == torch.float32
