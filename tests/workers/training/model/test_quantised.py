"""A quantised base: one and the same for trainer, reference and sampler, and what is delivered of it."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, MixtralConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from transformers.models.mixtral.modeling_mixtral import MixtralForCausalLM

from tests.tiny_model import make_tiny_model
from tests.workers.training.conftest import moved
from tests.workers.training.passes.test_forward import plain_logprobs, shared_logprobs
from tests.workers.training.support import make_config
from workers.training.base.determinism import only_deterministic
from workers.training.base.errors import ModelInvalid
from workers.training.base.types import Prompt
from workers.training.model import quantised
from workers.training.model.arithmetic import in_fp32
from workers.training.model.base_model import check_can_quantise, load_base
from workers.training.model.policy import Policy
from workers.training.model.quantised import QUANTISATION, Int8, Nf4, QuantisedLinear
from workers.training.passes.packing import PackedCompletion
from workers.training.passes.path import why_general
from workers.training.sampling import decoders
from workers.training.sampling.asked import Sampling
from workers.training.sampling.graphed.kept import memory_of_weights
from workers.training.sampling.rollout import sample_groups

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")

PRECISIONS = ("nf4", "int8")
ERRORS = {"nf4": 0.11, "int8": 0.012}
"""What quantising normal numbers may lose, relative to their norm: measured 0.092 and 0.0075."""
MOST_APART = 5e-5
"""How far log-probabilities may be from those of the libraries: rounding in fp32 made of it 5e-6 here."""
IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that is stored in bf16."""
    folder = make_tiny_model(tmp_path_factory.mktemp("half"), scale=0.3)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def reference(policy: Policy) -> Tensor:
    with policy.reference() as model:
        return logits(model)


def layers(model: Any) -> dict[str, QuantisedLinear]:
    return {name: each for name, each in model.named_modules() if isinstance(each, QuantisedLinear)}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_product_and_its_gradient_are_those_of_the_dequantised_weight(
    precision: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    packed = quantised.KINDS[precision].of(weight, dtype)
    assert packed.codes.dtype.itemsize == 1
    assert packed.codes.numel() == weight.numel() // (2 if precision == "nf4" else 1)
    held = packed.weight(torch.float32)
    assert 0 < float((held - weight).norm() / weight.norm()) < ERRORS[precision]
    assert torch.equal(packed.weight(dtype), held.to(dtype))
    states, plain = (torch.randn(3, 5, 64).to(dtype).requires_grad_() for _ in range(2))
    plain.data.copy_(states.data)
    packed.product(states).square().sum().backward()
    nn.functional.linear(plain, held.to(dtype)).square().sum().backward()
    assert torch.equal(packed.product(states), nn.functional.linear(plain, held.to(dtype)))
    assert states.grad is not None
    assert plain.grad is not None
    assert torch.equal(states.grad, plain.grad)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_row_computes_does_not_depend_on_its_neighbours(precision: str) -> None:
    torch.manual_seed(0)
    packed = quantised.KINDS[precision].of(torch.randn(64, 64), torch.float32)
    rows = torch.randn(4, 64)
    beside = rows.clone()
    beside[1:] *= 100  # above the threshold from which bitsandbytes' own 8-bit layer sets a column apart
    torch.testing.assert_close(packed.product(rows)[0], packed.product(beside)[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_policy_sampler_and_reference_start_as_one_and_the_reference_stays(
    half: Path, precision: str
) -> None:
    policy = Policy.load(make_config(half, base_precision=precision))
    start = reference(policy)
    assert torch.equal(logits(policy.model), start)
    assert torch.equal(logits(policy.rollout_model), start)
    assert not torch.equal(start, logits(load_base(half).model))
    moved(policy)
    assert torch.equal(reference(policy), start)
    assert not torch.allclose(logits(policy.model), start, atol=0.1)
    torch.testing.assert_close(logits(policy.rollout_model), logits(policy.model), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_three_share_one_copy_and_no_sum_is_kept(half: Path, precision: str) -> None:
    policy = moved(Policy.load(make_config(half, base_precision=precision)))
    mine, sampling = layers(policy.model), layers(policy.rollout_model)
    assert len(mine) == len(sampling) == 14
    for ours, theirs in zip(mine.values(), sampling.values(), strict=True):
        assert ours.weight.data_ptr() == theirs.weight.data_ptr() == theirs.packed.codes.data_ptr()
        assert ours.packed is theirs.packed
    large = [w for w in policy.rollout_model.parameters() if w.is_floating_point() and w.ndim == 2]
    head = policy.rollout_model.get_output_embeddings().weight
    embedding = policy.rollout_model.get_input_embeddings().weight
    assert {id(weight) for weight in large} == {id(head), id(embedding)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_base_has_the_bits_that_transformers_makes_of_the_folder(half: Path, precision: str) -> None:
    config = BitsAndBytesConfig(load_in_8bit=True)
    if precision == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
    theirs = AutoModelForCausalLM.from_pretrained(half, quantization_config=config, device_map="cpu")
    ours = layers(load_base(half, precision=precision).model)  # type: ignore[arg-type]
    kinds = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}
    named = {name for name, each in theirs.named_modules() if type(each).__name__ == kinds[precision]}
    assert named == ours.keys()
    for name, layer in ours.items():
        weight = theirs.get_submodule(name).weight
        assert torch.equal(weight.data.flatten(), layer.packed.codes.flatten())
        if isinstance(layer.packed, Int8):
            assert torch.equal(weight.SCB, layer.packed.scales)
        else:
            assert isinstance(layer.packed, Nf4)
            assert torch.equal(weight.quant_state.absmax, layer.packed.state.absmax)
            assert torch.equal(weight.quant_state.offset, layer.packed.state.offset)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_made_again_it_has_the_same_bits(half: Path, precision: str) -> None:
    first, second = (load_base(half, precision=precision).model for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(logits(first), logits(second))
    assert torch.equal(logits(first), logits(copy.deepcopy(first)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_measured_is_the_merged_model_that_is_delivered(
    half: Path, tmp_path: Path, precision: str
) -> None:
    policy = moved(Policy.load(make_config(half, base_precision=precision)))
    apart = logits(policy.rollout_model)
    with policy.as_delivered() as error:
        measured = logits(policy.measured_model)
        for layer in layers(policy.rollout_model).values():
            layer.merge(None)  # as where there is no memory to hold all of them
        assert torch.equal(logits(policy.measured_model), measured)
    assert error is not None
    assert 0 < error < 0.1
    assert torch.equal(logits(policy.rollout_model), apart)
    policy.save_model(tmp_path)
    delivered = load_base(tmp_path)
    assert delivered.stored_dtype is torch.bfloat16
    assert torch.equal(logits(delivered.model), measured)
    assert not torch.equal(measured, apart)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    weights = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def in_plain_peft(folder: Path, policy: Policy, into: Path) -> Any:
    """The policy as others load it: the base quantised as is told beside the adapter, and that by PEFT."""
    policy.save_adapter(into)
    how = BitsAndBytesConfig.from_dict(json.loads((into / QUANTISATION).read_text()))
    base = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=how, device_map="cpu", dtype=torch.float32
    )
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name it has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        plain = PeftModel.from_pretrained(base, into)
    # In eval mode the library's 8-bit layer rounds what it reads too, and on CPUs that multiply bf16 its
    # 4-bit layer repacks its weight, which takes inputs in blocks of 64 (decision 58).
    return plain.train()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plain_peft_says_the_same_with_the_adapter_over_a_base_quantised_as_told(
    half: Path, tmp_path: Path, precision: str
) -> None:
    policy = moved(Policy.load(make_config(half, base_precision=precision)))
    plain = in_plain_peft(half, policy, tmp_path)
    torch.testing.assert_close(logits(plain), logits(policy.model), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("way", [None, decoders.by_modules, decoders.general, decoders.static])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_sampler_and_the_trainer_give_the_log_probabilities_of_plain_peft(
    half: Path, tmp_path: Path, precision: str, way: decoders.MakeDecoder | None
) -> None:
    policy = moved(Policy.load(make_config(half, base_precision=precision)))
    plain = in_plain_peft(half, policy, tmp_path)
    prompts = [Prompt(0, {}, tuple(range(5, 17))), Prompt(1, {}, (9, 4, 7))]
    groups = sample_groups(policy, prompts, Sampling(3, 12, 1.0, ("test", 1)), make_decoder=way)
    packed = [PackedCompletion(group.prompt, one) for group in groups for one in group.completions]
    with torch.no_grad():
        trained = shared_logprobs(policy.model, packed)
        for one, found in zip(packed, trained, strict=True):
            expected = plain_logprobs(plain, one)
            torch.testing.assert_close(found, expected, atol=MOST_APART, rtol=0)
            sampled = torch.tensor(one.completion.logprobs)
            torch.testing.assert_close(sampled, expected, atol=MOST_APART, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_torch_multiplies_where_it_must_be_deterministic_is_the_same(precision: str) -> None:
    torch.manual_seed(0)
    packed = quantised.KINDS[precision].of(torch.randn(96, 64), torch.float32)
    states, beside = (torch.randn(5, 64).requires_grad_() for _ in range(2))
    beside.data.copy_(states.data)
    packed.product(states).square().sum().backward()
    with only_deterministic():
        found = packed.product(beside)
    found.square().sum().backward()
    assert torch.equal(found, packed.product(states))
    torch.testing.assert_close(beside.grad, states.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_base_of_any_dtype_is_delivered_in_it(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    folder = make_tiny_model(tmp_path / "base", scale=0.3)
    AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    policy = moved(Policy.load(make_config(folder, base_precision=precision)))
    with policy.as_delivered():
        measured = logits(policy.measured_model)
    policy.save_model(tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}
    torch.testing.assert_close(logits(load_base(tmp_path / "out").model), measured, atol=1e-4, rtol=1e-4)


def test_a_quantised_model_is_decoded_by_its_modules(half: Path) -> None:
    model = Policy.load(make_config(half, base_precision="nf4")).rollout_model
    assert why_general(model) is None
    assert decoders.is_fast(model, 64)
    assert not decoders.can_be_lean(model)
    assert not decoders.can_be_compiled(model)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_that_are_no_plain_products_are_refused(tmp_path: Path, precision: str) -> None:
    MixtralForCausalLM(
        MixtralConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, num_local_experts=2,
        )
    ).save_pretrained(tmp_path / "experts")  # fmt: skip
    GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "transposed"
    )
    with pytest.raises(
        ModelInvalid, match=rf"'{precision}' cannot hold MixtralForCausalLM: .*several experts"
    ):
        check_can_quantise(tmp_path / "experts", precision)
    with pytest.raises(ModelInvalid, match=r"GPT2LMHeadModel: .*transposed"):
        check_can_quantise(tmp_path / "transposed", precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_its_paths_are_compared_in_fp32_where_it_computes_in_bf16(half: Path, precision: str) -> None:
    model = load_base(half, dtype="bfloat16", precision=precision).model  # type: ignore[arg-type]
    assert model.dtype is torch.bfloat16
    with in_fp32(model) as is_exact, torch.no_grad():
        states = model.model(input_ids=IDS).last_hidden_state
    assert is_exact
    exact = load_base(half, dtype="float32", precision=precision).model  # type: ignore[arg-type]
    torch.testing.assert_close(states, exact.model(input_ids=IDS).last_hidden_state, atol=1e-4, rtol=1e-4)


def test_a_base_in_bf16_computes_in_bf16_on_a_cpu_too(half: Path) -> None:
    policy = Policy.load(make_config(half, base_precision="bf16"))
    assert policy.model.dtype is policy.rollout_model.dtype is torch.bfloat16
    assert {weight.dtype for weight in policy.trained().values()} == {torch.float32}


def test_an_adapter_beside_keeps_its_place_and_a_merged_weight_moves_what_was_captured(half):
    policy = Policy.load(make_config(half, base_precision="nf4"))
    apart = memory_of_weights(policy.rollout_model)
    moved(policy)
    beside = memory_of_weights(policy.rollout_model)
    assert beside != apart
    moved(policy)
    assert memory_of_weights(policy.rollout_model) == beside
    layer = next(iter(layers(policy.rollout_model).values()))
    layer.merge(torch.float32)
    merged = memory_of_weights(policy.rollout_model)
    assert merged != beside
    kept = layer.merged
    layer.merge(torch.float32)
    assert memory_of_weights(policy.rollout_model) != merged
    assert kept is not layer.merged
    layer.unmerge()
    assert memory_of_weights(policy.rollout_model) == beside
