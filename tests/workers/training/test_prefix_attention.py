"""Attention of a packed stream in few calls, against one that hides by a mask."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.training import prefix_attention
from workers.training.packed_attention import Segment
from workers.training.prefix_attention import attend, make_layout

HEADS, KV_HEADS, WIDTH = 4, 2, 8
GROUPS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(0, 60), min_size=1, max_size=6)),
    min_size=1,
    max_size=3,
)


def segments_of(groups):
    found, start = [], 0
    for prompt, completions in groups:
        found.append(Segment(start, prompt, tuple(completions)))
        start += prompt + sum(completions)
    return found, start


def visible(segments, n):
    """(n, n): which tokens each looks at."""
    sees = torch.zeros(n, n, dtype=torch.bool)
    for start, prompt, completions in segments:
        at = start + prompt
        sees[start:at, start:at] = True
        for length in completions:
            sees[at : at + length, start : start + prompt] = True
            sees[at : at + length, at : at + length] = True
            at += length
    return sees.tril()


def by_mask(query, key, value, sees, scaling):
    key, value = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scaling
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


@settings(deadline=None, max_examples=60)
@given(groups=GROUPS, run=st.sampled_from([1, 20, 1000]), seed=st.integers(0, 99))
def test_values_and_gradients_are_those_of_a_masked_softmax(groups, run, seed):
    segments, n = segments_of(groups)
    generator = torch.Generator().manual_seed(seed)
    sizes = [(n, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    operands = [torch.randn(size, generator=generator, dtype=torch.double) for size in sizes]
    grad = torch.randn(sizes[0], generator=generator, dtype=torch.double)
    given_operands = [operand.requires_grad_() for operand in operands]
    before, prefix_attention.RUN_TOKENS = prefix_attention.RUN_TOKENS, run
    try:
        layout = make_layout(segments)
    finally:
        prefix_attention.RUN_TOKENS = before
    found = attend(*given_operands, layout, 0.3)
    expected = by_mask(*given_operands, visible(segments, n), 0.3)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, given_operands, grad),
        torch.autograd.grad(expected, given_operands, grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@given(GROUPS)
def test_every_token_is_in_one_sequence_and_padding_is_bounded(groups):
    segments, n = segments_of(groups)
    tokens = torch.arange(n)
    seen = []
    for own in make_layout(segments).own:
        places = own.take(tokens[:, None]).transpose(1, 2).flatten()
        real = places if own.padded is None else places[own.padded.real]
        seen += real.tolist()
        padding = len(places) - len(real)
        assert padding <= own.n * max(prefix_attention.PADDING, own.width // 4)
    assert sorted(seen) == list(range(n))


def test_equal_completions_are_read_where_they_lie():
    layout = make_layout([Segment(0, 200, (64, 64, 64))])
    assert [(own.start, own.n, own.width) for own in layout.own] == [(0, 1, 200), (200, 3, 64)]
    assert all(own.padded is None for own in layout.own)
