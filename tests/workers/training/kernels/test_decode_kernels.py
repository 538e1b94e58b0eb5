"""The kernels of a decode step against tensor operations, on random shapes and hostile values."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.workers.training.sampling.test_decode_attention import make_model
from workers.training.kernels.attend import Rows, attend, make_scratch
from workers.training.kernels.panels import ADDED, IN_CACHE, START, STREAMED, WRITTEN, multiply, pack
from workers.training.model.adapter_rows import LowRank
from workers.training.sampling.compiled_decoder import CompiledDecoder
from workers.training.sampling.decode_attention import layer_shapes, prefill
from workers.training.sampling.decode_step import ActiveRows
from workers.training.sampling.draw import draw, inverse_cdf
from workers.training.sampling.panel_cache import PanelCache
from workers.training.sampling.slot_cache import LayerShape

GENERATOR = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("inner", [1, 7, 64])
def test_a_product_of_any_number_of_rows_is_right_and_each_row_the_same_as_alone(inner: int, n: int) -> None:
    weight = random(16 * n, inner)
    panels = np.zeros((n, inner, 16), np.float32)
    pack(weight, 0, panels)
    wide, step = np.int64(16 * n), np.int64(inner)
    packed = (panels.reshape(-1), START, np.int64(inner * 16))

    def made_of(
        x: np.ndarray, out: np.ndarray, is_added: np.bool_, reading: tuple[np.int64, np.bool_]
    ) -> None:
        into = (out.reshape(-1), START, wide, np.int64(16))
        multiply(len(x), inner, (x.reshape(-1), START, step), packed, n, into, is_added, reading)

    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 25):
        x, before = random(rows, inner), random(rows, 16 * n)
        made, added, streamed = np.full((rows, 16 * n), np.nan, np.float32), before.copy(), before.copy()
        made_of(x, made, WRITTEN, IN_CACHE)
        made_of(x, added, ADDED, IN_CACHE)
        made_of(x, streamed, WRITTEN, STREAMED)
        np.testing.assert_allclose(made, x @ weight.T, atol=1e-4)
        np.testing.assert_allclose(added, before + made, atol=1e-6)
        assert (streamed == made).all()
        for row in range(rows):
            alone = np.empty((1, 16 * n), np.float32)
            made_of(x[row : row + 1], alone, WRITTEN, IN_CACHE)
            assert (alone == made[row]).all()


def filled_cache(kv_heads: int, D: int, groups: int, slots: int) -> tuple[PanelCache, list[torch.Tensor]]:
    """A cache of one layer and what it holds, as (slots, kv_heads, columns, D)."""
    cache = PanelCache(
        [LayerShape(kv_heads, D, D)], groups=groups, prompt_columns=50, slots=slots, columns=33
    )
    held = []
    for panels, n, columns in ((cache.prompts, groups, 50), (cache.completions, slots, 33)):
        keys, values = (torch.from_numpy(random(n, kv_heads, columns, D)) for _ in range(2))
        panels.keep(0, 0, keys, values)
        held += [keys, values]
    return cache, held


@pytest.mark.parametrize("scale", [0.3, 300.0])
@pytest.mark.parametrize(
    ("kv_heads", "folded", "D"), [(1, 1, 8), (2, 2, 16), (1, 8, 64), (3, 3, 24), (1, 30, 16), (2, 1, 128)]
)
def test_attention_is_that_of_one_softmax_over_prompt_and_own_tokens(
    kv_heads: int, folded: int, D: int, scale: float
) -> None:
    group = np.array([1, 0, 2, 2, 1, 3, 2])
    counts, lengths = np.array([1, 33, 15, 16, 17, 1, 2]), np.array([1, 16, 50, 17])
    B = len(group)
    cache, (keys, values, own_keys, own_values) = filled_cache(kv_heads, D, 4, B)
    rows = Rows(np.argsort(group, kind="stable"), group, counts, lengths, np.arange(len(group)))
    queries = random(kv_heads, B, folded, D) * np.float32(scale)
    width = -(-D // 16) * 16
    out = np.zeros((B, kv_heads * folded * width), np.float32)
    attend(0, rows, queries, *cache.arrays(), make_scratch(rows, folded, width), out)
    for place, slot in enumerate(rows.slots):
        of, n, count = group[slot], lengths[group[slot]], counts[slot]
        key = torch.cat([keys[of, :, :n], own_keys[slot, :, :count]], 1)
        value = torch.cat([values[of, :, :n], own_values[slot, :, :count]], 1)
        weights = (torch.from_numpy(queries[:, place]) @ key.transpose(1, 2)).softmax(-1)
        found = torch.from_numpy(out[place].reshape(kv_heads, folded, width))
        torch.testing.assert_close(found[..., :D], weights @ value, atol=1e-5, rtol=2e-4 * max(scale, 1))
        assert (found[..., D:] == 0).all()


def test_a_completion_is_read_to_the_same_bits_whatever_is_beside_it_and_however_many_threads() -> None:
    model = make_model("qwen3")
    group, counts, lengths = np.repeat([1, 0, 2], 4), np.ones(12, np.int64), np.array([9, 3, 20])
    prompts = torch.randint(2, 90, (3, 20), generator=torch.Generator().manual_seed(0))
    ids = torch.arange(12) + 5
    shapes, _ = layer_shapes(model, torch.device("cpu"))
    found = []
    with torch.inference_mode():
        for threads in (1, 3):
            cache = PanelCache(shapes, groups=3, prompt_columns=20, slots=12, columns=2)
            prefill(model, cache, 0, prompts, torch.from_numpy(lengths))
            decoder = CompiledDecoder(model, cache, 22)
            torch.set_num_threads(threads)
            try:
                found.append(decoder(ActiveRows(group, counts, lengths), ids).clone())
            finally:
                torch.set_num_threads(1)
            alone = torch.stack(
                [decoder(ActiveRows(group[:n], counts[:n], lengths), ids[:n])[-1].clone() for n in (1, 5)]
            )
            assert torch.equal(alone, found[-1][[0, 4]])
    assert torch.equal(*found)


ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapters_of(model: torch.nn.Module) -> dict[int, dict[str, LowRank]]:
    """Adapters of ranks 4, 24 and 1: of all layers, of some, of one kind; their numbers have a gap."""
    generator = torch.Generator().manual_seed(3)

    def low_rank(linear: torch.nn.Linear, rank: int) -> LowRank:
        down = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features**0.5
        return LowRank(down, torch.randn(linear.out_features, rank, generator=generator) / rank**0.5)

    found = {}
    for number, rank, of in ((0, 4, ADAPTED), (1, 24, ("k_proj", "v_proj", "up_proj")), (3, 1, ("o_proj",))):
        found[number] = {
            name: low_rank(module, rank)
            for name, module in model.named_modules()
            if name.endswith(of) and not (number == 1 and ".1." in name)
        }
    return found


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@torch.no_grad()
def test_rows_of_several_adapters_and_of_the_base_are_those_of_merged_weights(family: str) -> None:
    model = make_model(family)
    adapters = adapters_of(model)
    number = np.array([1, -1, 0, 3, 0, -1, 1])
    B = len(number)
    group, counts, lengths = np.arange(B), np.ones(B, np.int64), np.array([9, 3, 20, 1, 4, 7, 2])
    prompts = torch.randint(2, 90, (B, 20), generator=torch.Generator().manual_seed(0))
    ids = torch.arange(B) + 5
    shapes, _ = layer_shapes(model, torch.device("cpu"))
    cache = PanelCache(shapes, groups=B, prompt_columns=20, slots=B, columns=2)
    prefill(model, cache, 0, prompts, torch.from_numpy(lengths))
    decoder = CompiledDecoder(model, cache, 22)
    decoder.set_adapters(adapters)
    found = decoder(ActiveRows(group, counts, lengths), ids, number).clone()
    plain = decoder(ActiveRows(group, counts, lengths), ids).clone()
    alone = [
        decoder(ActiveRows(group[:n], counts[:n], lengths), ids[:n], number[:n])[-1].clone() for n in (1, 4)
    ]
    assert torch.equal(torch.stack(alone), found[[0, 3]])
    assert torch.equal(found[number < 0], plain[number < 0])
    for each in (0, 1, 3):
        merged = copy.deepcopy(model)
        for name, (down, up) in adapters[each].items():
            merged.get_submodule(name).weight += up @ down
        rows = number == each
        expected = CompiledDecoder(merged, cache, 22)(ActiveRows(group, counts, lengths), ids)[rows].clone()
        torch.testing.assert_close(found[rows], expected, atol=2e-5, rtol=2e-5)
        assert (found[rows] - plain[rows]).abs().max() > 0.01


def test_an_adapter_of_another_layer_is_refused() -> None:
    model = make_model("llama")
    shapes, _ = layer_shapes(model, torch.device("cpu"))
    decoder = CompiledDecoder(model, PanelCache(shapes, groups=1, prompt_columns=4, slots=1, columns=2), 6)
    with pytest.raises(ValueError, match="'lm_head'"):
        decoder.set_adapters({0: {"lm_head": LowRank(torch.zeros(1, 4), torch.zeros(4, 1))}})


@pytest.mark.parametrize("vocabulary", [1, 127, 128, 300, 20_000])
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_draws_and_their_logprobs_are_those_of_double_precision(vocabulary: int, temperature: float) -> None:
    logits, uniform = (
        torch.from_numpy(random(200, vocabulary) * 3),
        torch.from_numpy(random(200)).frac().abs(),
    )
    logits[:, 1::5] = -torch.inf
    tokens, logprobs = draw(logits, uniform, temperature)
    expected = torch.log_softmax(logits.double() / temperature, -1)
    sums = expected.exp().cumsum(-1)
    near = torch.searchsorted(sums, uniform.double()[:, None])[:, 0]
    assert (tokens != near).float().mean() <= 0.01  # where both are within a rounding of each other
    torch.testing.assert_close(
        logprobs.double(), expected.gather(-1, tokens[:, None])[:, 0], atol=3e-6, rtol=1e-6
    )


@pytest.mark.parametrize("vocabulary", [1, 129, 1000])
def test_tensor_operations_draw_what_the_kernel_draws(vocabulary: int) -> None:
    """A GPU's way."""
    logits, uniform = (
        torch.from_numpy(random(300, vocabulary) * 3),
        torch.from_numpy(random(300)).frac().abs(),
    )
    logits[:, 1::3] = -torch.inf
    uniform[:2] = torch.tensor([0, 1 - 2**-24])
    tokens, _ = draw(logits, uniform, 1.0)
    found = inverse_cdf(torch.softmax(logits, -1), uniform)
    assert (found != tokens).float().mean() <= 0.01  # where both are within a rounding of each other
    assert logits.gather(-1, found[:, None]).isfinite().all()
    assert logits.gather(-1, tokens[:, None]).isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_broken_model_draws_tokens_of_the_vocabulary(value: float) -> None:
    tokens, logprobs = draw(torch.full((3, 300), value), torch.tensor([0.0, 0.5, 1 - 2**-24]), 1.0)
    assert ((tokens >= 0) & (tokens < 300)).all()
    assert logprobs.isnan().all()
