"""Decode steps against whole sequences, for several families and over merged weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.families import PACKED, VOCABULARY, make_family
from workers.training.decode_attention import (
    DecodeAttention,
    decode,
    layer_shapes,
    partial_attention,
    plain_attention,
    prefill,
)
from workers.training.decode_step import Live, exact_step, places, spans
from workers.training.lean_decoder import lean_decoder
from workers.training.slot_cache import LayerShape, SlotCache

MERGED = ("llama", "qwen2", "qwen3")


def make_model(family):
    """Norms are 1 and biases 0 in a fresh model; not here."""
    model = make_family(family)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


@torch.no_grad()
def steps(model, decoder):
    """Logits of three decode steps for 5 completions of 3 prompts, by the sampler and by whole sequences."""
    generator = torch.Generator().manual_seed(2)
    lengths, group = np.array([9, 2, 30]), np.array([2, 0, 0, 1, 2])
    prompts = [torch.randint(2, VOCABULARY, (n,), generator=generator) for n in lengths]
    texts = [prompts[i] for i in group]
    cache = SlotCache(
        *layer_shapes(model, torch.device("cpu")), groups=4, prompt_columns=30, slots=6, columns=4
    )
    ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    first = prefill(model, cache, 0, ids, torch.from_numpy(lengths))
    expected = torch.stack([model(input_ids=text[None]).logits[0, -1] for text in prompts])
    found = [(first, expected)]
    for n in range(1, 4):
        last = torch.randint(2, VOCABULARY, (5,), generator=generator)
        texts = [torch.cat([text, token[None]]) for text, token in zip(texts, last, strict=True)]
        step = exact_step(Live(group, np.full(5, n), lengths), last)
        found.append(
            (decoder(cache, step), torch.stack([model(input_ids=t[None]).logits[0, -1] for t in texts]))
        )
    return found


def assert_near(pairs):
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("family", PACKED)
def test_decode_steps_give_the_logits_of_whole_sequences(family):
    model = make_model(family)
    assert_near(steps(model, lambda cache, step: decode(model, cache, step)))


@pytest.mark.parametrize("family", MERGED)
@pytest.mark.parametrize("has_bias", [False, True])
def test_merged_weights_give_the_logits_of_whole_sequences(family, has_bias):
    model = make_model(family)
    if has_bias:
        for layer in model.get_decoder().layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                linear.bias = torch.nn.Parameter(torch.randn(linear.out_features))
            layer.mlp.down_proj.bias = torch.nn.Parameter(torch.randn(layer.mlp.down_proj.out_features))
    assert_near(steps(model, lean_decoder(model).decode))


@pytest.mark.parametrize("group", [[0, 0, 1, 1, 2, 2], [2, 0, 0, 1, 2]])
@pytest.mark.parametrize("lengths", [[9, 9, 9], [9, 2, 30]])
def test_one_softmax_gives_what_two_give(group, lengths):
    generator = torch.Generator().manual_seed(1)
    B, counts = len(group), np.array([4, 2, 4, 4, 1, 3])[: len(group)]
    live = Live(np.array(group), counts, np.array(lengths))
    step = exact_step(live, torch.zeros(B, dtype=torch.long))
    shapes = [LayerShape(2, 16, 16)]
    sizes = {"groups": 4, "prompt_columns": 30, "slots": 7, "columns": 5}
    found = []
    for kind in (DecodeAttention, JointAttention):
        cache = SlotCache(shapes, torch.zeros(1), **sizes)
        for layer in (*cache.prompts, *cache.completions):
            for kept in layer:
                kept.normal_(generator=generator.manual_seed(kept.shape[2]))
        operands = [torch.randn(B, heads, 16, generator=generator.manual_seed(3)) for heads in (6, 2, 2)]
        assert JointAttention.suits(cache, step)
        found.append((kind(cache, step).read_and_write(0, *operands, 0.3), *cache.completions[0]))
    for joint, parts in zip(*found, strict=True):
        torch.testing.assert_close(joint, parts, atol=1e-6, rtol=1e-5)


def test_rows_of_very_different_lengths_are_read_in_parts():
    live = Live(np.repeat([0, 1], 16), np.ones(32, dtype=np.int64), np.array([2000, 10]))
    step = exact_step(live, torch.zeros(32, dtype=torch.long))
    cache = SlotCache(
        [LayerShape(1, 4, 4)], torch.zeros(1), groups=2, prompt_columns=2000, slots=32, columns=1
    )
    assert not JointAttention.suits(cache, step)


@pytest.mark.parametrize("family", sorted(set(PACKED) - set(MERGED)))
def test_other_families_are_run_by_their_own_modules(family):
    assert lean_decoder(make_model(family)) is None


def test_what_is_no_plain_layer_is_run_by_its_own_module():
    model = make_model("llama")
    head, layer = model.lm_head, model.get_decoder().layers[1].mlp
    model.lm_head = torch.nn.Sequential(head)
    assert lean_decoder(model) is None
    model.lm_head = head
    assert lean_decoder(model) is not None
    layer.up_proj = torch.nn.Sequential(layer.up_proj)
    assert lean_decoder(model) is None


def test_weights_are_merged_as_they_are_when_a_call_begins():
    model = make_model("llama")
    before = steps(model, lean_decoder(model).decode)[1][0]
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.down_proj.weight.zero_()
    after = steps(model, lean_decoder(model).decode)[1][0]
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
