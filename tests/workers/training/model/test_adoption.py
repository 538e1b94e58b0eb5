"""Which attention a model may call: rounding is none of its faults, however deep it is, and 1 % is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tests.workers.training.families import add_lora, make_family
from workers.training.model import attention
from workers.training.model.arithmetic import compute_in, in_fp32
from workers.training.model.base_model import load_base
from workers.training.model.head import OwnHead, output_head
from workers.training.passes.packed_attention import PackedAttention
from workers.training.passes.path import why_general

DTYPES = [torch.float32, torch.bfloat16]
NANO = Path(__file__).parents[4] / "workers" / "models" / "cherry_nano"
ids = torch.arange(3, 20)[None]


def deep_model(layers: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Returns a random Llama whose weights differ by `seed`, with "eager" attention."""
    model = make_family("llama", "eager", num_hidden_layers=layers)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return model.to(dtype).requires_grad_(False)


@pytest.fixture
def registry() -> Iterator[Any]:
    """Gives what replaces the attention and the mask function called `cherry`."""

    def replace(attend: Any = None, mask: Any = None) -> None:
        if attend is not None:
            AttentionInterface.register(attention.NAME, attend)
        if mask is not None:
            AttentionMaskInterface.register(attention.NAME, mask)

    yield replace
    replace(attention._attention, attention._mask)


@pytest.mark.parametrize(
    ("layers", "seed"),
    [
        (24, 0),
        (80, 2),
        *(
            pytest.param(layers, seed, marks=pytest.mark.long)
            for layers in (24, 48, 80)
            for seed in range(3, 8)
        ),
    ],
)
def test_a_deep_model_in_sixteen_bits_is_adopted_and_packed(layers: int, seed: int) -> None:
    model = deep_model(layers, seed)
    assert attention.adopt(model) is None
    assert why_general(model) is None
    assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())


def off_by_one_percent(
    module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: Any = None, **more: Any
) -> Any:
    return sdpa_attention_forward(module, q, k, v, mask, scaling=1.01 * q.shape[-1] ** -0.5, **more)


def capped(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = 20 * torch.tanh(scores / 20)
    hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1).to(v.dtype) @ v).transpose(1, 2), None


def sink(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    nothing = torch.zeros_like(k[:, :, :1])
    k, v = torch.cat([nothing, k], 2), torch.cat([nothing, v], 2)
    k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(1)
    found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)
    return found.transpose(1, 2), None


def sees_the_next(*args: Any, **more: Any) -> Any:
    mask = sdpa_mask(*args, **{**more, "allow_is_causal_skip": False})
    return torch.ones_like(mask).tril(1)


WRONG = {
    "scaling": (off_by_one_percent, None),
    "capped scores": (capped, None),
    "a sink": (sink, None),
    "off by one": (None, sees_the_next),
}


@pytest.mark.parametrize(
    ("layers", "dtype"),
    [
        (2, torch.float32),
        (48, torch.bfloat16),
        pytest.param(2, torch.bfloat16, marks=pytest.mark.long),
        pytest.param(48, torch.float32, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(("attend", "mask"), WRONG.values(), ids=WRONG)
def test_another_attention_is_refused_in_any_dtype(
    attend: Any, mask: Any, layers: int, dtype: torch.dtype, registry: Any
) -> None:
    registry(attend, mask)
    reason = attention.adopt(deep_model(layers, dtype=dtype))
    assert reason is not None
    assert "computes other states" in reason


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_that_is_not_looked_at_is_refused_in_any_dtype(dtype: torch.dtype, registry: Any) -> None:
    def causal(*args: Any, **more: Any) -> Any:
        mask = sdpa_mask(*args, **{**more, "allow_is_causal_skip": False})
        return torch.ones_like(mask).tril()

    model = make_family("mistral", "eager", sliding_window=4).to(dtype)
    registry(None, causal)
    assert "computes other states" in str(attention.adopt(model))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_packed_batch_with_scores_off_by_a_hundredth_takes_the_general_path(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deep_model(4, dtype=dtype)
    assert attention.adopt(model) is None
    right = PackedAttention.__call__
    monkeypatch.setattr(
        PackedAttention,
        "__call__",
        lambda self, module, q, k, v, scaling: right(self, module, 1.01 * q, k, v, scaling),
    )
    assert "computes other states in a packed batch" in str(why_general(model))


def test_in_fp32_a_model_computes_what_its_fp32_copy_does_and_keeps_its_weights() -> None:
    model = deep_model(3)
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    plain = model(input_ids=ids).logits
    with in_fp32(model) as is_exact:
        found = model(input_ids=ids).logits
    assert is_exact
    assert found.dtype == torch.float32
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before
    assert torch.equal(model(input_ids=ids).logits, plain)
    torch.testing.assert_close(found, model.float()(input_ids=ids).logits)


def test_in_fp32_one_layer_at_a_time_has_wide_weights() -> None:
    model = deep_model(3)
    wide = []

    def count(*_: Any) -> None:
        wide.append(
            [
                i
                for i, layer in enumerate(model.model.layers)
                if layer.mlp.up_proj.weight.dtype == torch.float32
            ]
        )

    for layer in model.model.layers:
        layer.mlp.register_forward_hook(count)
    with in_fp32(model):
        model(input_ids=ids)
    assert wide == [[0], [1], [2]]


def test_in_fp32_weights_are_back_after_an_error() -> None:
    model = deep_model(2)

    def fail(*_: Any) -> None:
        raise KeyError

    hook = model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(KeyError), in_fp32(model):
        model(input_ids=ids)
    hook.remove()
    assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())


def test_in_fp32_autocast_is_off_and_on_again_afterwards() -> None:
    model = make_family("llama", "eager")
    with torch.no_grad():
        expected = model.model(input_ids=ids).last_hidden_state
        compute_in(model, torch.bfloat16)
        rounded = model.model(input_ids=ids).last_hidden_state
        assert rounded.dtype == torch.bfloat16
        with in_fp32(model) as is_exact:
            assert torch.equal(model.model(input_ids=ids).last_hidden_state, expected)
        assert is_exact
        assert torch.equal(model.model(input_ids=ids).last_hidden_state, rounded)


def test_weights_that_are_codes_stay_and_so_does_the_arithmetic() -> None:
    model = deep_model(2)
    codes = torch.zeros(3, dtype=torch.uint8)
    model.model.layers[0].register_parameter("codes", nn.Parameter(codes, requires_grad=False))
    with in_fp32(model) as is_exact:
        assert model.model(input_ids=ids).last_hidden_state.dtype == torch.bfloat16
    assert not is_exact
    assert attention.adopt(model) is None
    assert why_general(model) is None


def test_an_adapter_on_a_base_in_sixteen_bits_is_packed() -> None:
    model = add_lora(deep_model(16))
    attention.adopt(model)
    assert why_general(model) is None


def test_a_cap_on_logits_is_seen_in_sixteen_bits() -> None:
    model = make_family(
        "gemma2", "eager", num_key_value_heads=2, head_dim=8, final_logit_softcapping=30.0
    ).bfloat16()
    assert isinstance(output_head(model), OwnHead)


def test_the_built_in_model_in_sixteen_bits_on_a_cpu_takes_the_fast_path() -> None:
    base = load_base(NANO, dtype="bfloat16")
    assert base.model.dtype == torch.bfloat16
    assert why_general(base.model) is None
