"""Decode steps against whole sequences, for several families and over merged weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.families import PACKED, VOCABULARY, make_family
from workers.training.sampling.compiled_decoder import CompiledDecoder
from workers.training.sampling.decode_attention import decode, partial_attention, plain_attention, prefill
from workers.training.sampling.decode_step import ActiveRows, exact_step, places, spans
from workers.training.sampling.decoders import CacheSize, can_be_compiled, make_decoder, slot_cache
from workers.training.sampling.lean_decoder import LeanDecoder, can_be_lean

MERGED = ("llama", "qwen2", "qwen3")


def make_model(family, **changes):
    """Norms are 1 and biases 0 in a fresh model; not here."""
    model = make_family(family, **changes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


CACHE_SIZE = CacheSize(groups=4, prompt_columns=30, slots=6, columns=4, most_columns=4)


def by_modules(model):
    cache = slot_cache(model, CACHE_SIZE)
    return cache, lambda active, ids: decode(model, cache, exact_step(active, ids))


def by_merged_weights(model):
    cache, lean = slot_cache(model, CACHE_SIZE), LeanDecoder(model)
    return cache, lambda active, ids: lean.decode(cache, exact_step(active, ids))


def by_kernels(model):
    cache, decoder = make_decoder(model, CACHE_SIZE, 2, 99)
    assert isinstance(decoder, CompiledDecoder)
    return cache, decoder


@torch.no_grad()
def steps(model, way):
    """Logits of three decode steps for 5 completions of 3 prompts, by the sampler and by whole sequences."""
    generator = torch.Generator().manual_seed(2)
    lengths, group = np.array([9, 1, 30]), np.array([2, 0, 0, 1, 2])
    prompts = [torch.randint(2, VOCABULARY, (n,), generator=generator) for n in lengths]
    texts = [prompts[i] for i in group]
    cache, decoder = way(model)
    ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    first = prefill(model, cache, 0, ids, torch.from_numpy(lengths))
    expected = torch.stack([model(input_ids=text[None]).logits[0, -1] for text in prompts])
    found = [(first, expected)]
    for n in range(1, 4):
        last = torch.randint(2, VOCABULARY, (5,), generator=generator)
        texts = [torch.cat([text, token[None]]) for text, token in zip(texts, last, strict=True)]
        logits = decoder(ActiveRows(group, np.full(5, n), lengths), last)
        found.append((logits.clone(), torch.stack([model(input_ids=t[None]).logits[0, -1] for t in texts])))
    return found


def assert_near(pairs):
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", PACKED)
def test_decode_steps_give_the_logits_of_whole_sequences(family):
    assert_near(steps(make_model(family), by_modules))


@pytest.mark.parametrize("family", MERGED)
@pytest.mark.parametrize("way", [by_merged_weights, by_kernels])
@pytest.mark.parametrize("has_bias", [False, True])
def test_merged_weights_give_the_logits_of_whole_sequences(family, way, has_bias):
    model = make_model(family)
    if has_bias:
        for layer in model.get_decoder().layers:
            of = layer.self_attn
            linears = [of.q_proj, of.k_proj, of.v_proj]
            if way is by_merged_weights:
                linears.append(layer.mlp.down_proj)
            for linear in linears:
                linear.bias = torch.nn.Parameter(torch.randn(linear.out_features))
    assert_near(steps(model, way))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(8, 1, 8), (4, 4, 16), (3, 1, 64), (2, 2, 128), (6, 2, 24)]
)
def test_kernels_know_heads_of_all_widths_and_widths_that_fill_no_panel(heads, kv_heads, head_dim):
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    assert_near(steps(make_model("qwen3", hidden_size=40, intermediate_size=50, **shape), by_kernels))


@pytest.mark.parametrize("family", sorted(set(PACKED) - set(MERGED)))
def test_other_families_are_run_by_their_own_modules(family):
    model = make_model(family)
    assert not can_be_lean(model)
    assert not can_be_compiled(model)


def test_what_is_no_plain_layer_is_run_by_its_own_module():
    model = make_model("llama")
    head, layer = model.lm_head, model.get_decoder().layers[1].mlp
    model.lm_head = torch.nn.Sequential(head)
    assert not can_be_lean(model)
    assert not can_be_compiled(model)
    model.lm_head = head
    assert can_be_lean(model)
    assert can_be_compiled(model)
    layer.up_proj = torch.nn.Sequential(layer.up_proj)
    assert not can_be_lean(model)
    assert not can_be_compiled(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"mlp_bias": True},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}},
    ],
)
def test_what_the_kernels_do_not_know_is_decoded_by_tensor_operations(changes):
    model = make_model("llama", **changes)
    assert not can_be_compiled(model)
    _, decoder = make_decoder(model, CACHE_SIZE, 2, 99)
    assert not isinstance(decoder, CompiledDecoder)


def test_16_bit_and_large_models_are_decoded_by_tensor_operations():
    model = make_model("llama")
    assert can_be_compiled(model)
    assert not can_be_compiled(model, most_bytes=1000)
    assert not can_be_compiled(model.bfloat16())


@pytest.mark.parametrize("way", [by_merged_weights, by_kernels])
def test_weights_are_merged_as_they_are_when_a_call_begins(way):
    model = make_model("llama")
    before = steps(model, way)[1][0]
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.down_proj.weight.zero_()
    after = steps(model, way)[1][0]
    assert not torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize("attend", [partial_attention, plain_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value_width", [16, 24])
def test_parts_of_a_softmax_carry_their_log_sum_exp(attend, dtype, value_width):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    query, key, value = random(3, 2, 5, 16), random(3, 2, 70, 16), random(3, 2, 70, value_width)
    hidden = torch.arange(70) >= torch.tensor([[1], [40], [70]])
    bias = torch.zeros(3, 70, dtype=dtype).masked_fill(hidden, -torch.inf)[:, None, None]
    scores = query.double() @ key.double().transpose(-1, -2) * 0.3 + bias.double()
    states, logsumexp = attend(query, key, value, bias, 0.3)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = scores.softmax(-1) @ value.double()
    torch.testing.assert_close(states.double(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        logsumexp.double(), scores.logsumexp(-1, keepdim=True), atol=tolerance, rtol=tolerance
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_every_completion_has_a_place_in_its_own_group(groups):
    group = np.array(groups)
    source, place = places(group, 5)
    width = len(source) // 5
    assert (source[place] == np.arange(len(group))).all()
    assert (place // width == group).all()
    assert width == np.bincount(group).max()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.sampled_from([0, 100, 10**6]))
def test_spans_cover_all_slots_and_read_no_more_than_without(lengths, cost):
    found = spans(np.array(lengths), cost)
    assert [span.first for span in found] == [0, *(span.last for span in found[:-1])]
    assert found[-1].last == len(lengths)
    for span in found:
        part = lengths[span.first : span.last]
        assert span.width == max(part)
        assert span.is_full == (min(part) == max(part))
    read = sum((span.last - span.first) * span.width for span in found)
    assert read + cost * (len(found) - 1) <= len(lengths) * max(lengths)


def test_long_and_short_slots_are_read_apart():
    assert [s[:3] for s in spans(np.array([500, 480, 20, 10, 20]), 256)] == [(0, 2, 500), (2, 5, 20)]
    assert len(spans(np.array([500, 480, 20, 10, 20]), 10_000)) == 1
