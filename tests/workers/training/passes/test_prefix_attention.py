"""The compiled attention of a packed stream, against one that hides by a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from workers.training.passes.packed_attention import Segment
from workers.training.passes.prefix_attention import attend, make_layout

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
    key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scaling
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


def operands_of(n, heads, kv_heads, width, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(n, some, width) for some in (heads, kv_heads, kv_heads, heads)]
    *operands, grad = (scale * torch.randn(size, generator=generator) for size in sizes)
    return [operand.requires_grad_() for operand in operands], grad


def assert_that_of_a_masked_softmax(groups, heads, kv_heads, width, seed=0, scale=1.0, relative=1e-5):
    segments, n = segments_of(groups)
    operands, grad = operands_of(n, heads, kv_heads, width, seed, scale)
    found = attend(*operands, make_layout(segments), 0.3)
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    expected = by_mask(*exact, visible(segments, n), 0.3)
    gradients = torch.autograd.grad(found, operands, grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    for mine, right in zip((found, *gradients), (expected, *wanted), strict=True):
        tolerance = relative * float(1 + right.detach().abs().max())
        torch.testing.assert_close(mine.double(), right, atol=tolerance, rtol=0)


@examples(40)
@given(
    groups=GROUPS,
    heads=st.sampled_from([(4, 2), (3, 3), (8, 1), (5, 1), (2, 1)]),
    width=st.sampled_from([2, 8, 16, 20, 64]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_a_masked_softmax(groups, heads, width, seed):
    assert_that_of_a_masked_softmax(groups, *heads, width, seed)


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([(300, [260, 1, 0])], id="more keys than a tile has"),
        pytest.param([(256, [256]), (255, [257, 2])], id="just as many"),
        pytest.param([(1, [0])], id="one token"),
    ],
)
def test_keys_are_taken_some_at_a_time(groups):
    assert_that_of_a_masked_softmax(groups, 4, 2, 128)


def test_scores_in_the_thousands_neither_overflow_nor_vanish():
    assert_that_of_a_masked_softmax([(30, [20, 5])], 2, 1, 16, scale=40.0, relative=1e-3)


def test_a_completion_that_is_not_a_number_spoils_no_other():
    segments, n = segments_of([(5, [3, 4]), (2, [6])])
    operands, _ = operands_of(n, 2, 1, 8)
    layout = make_layout(segments)
    expected = attend(*operands, layout, 0.3)
    with torch.no_grad():
        for operand in operands:
            operand[5:8] = torch.nan
    found = attend(*operands, layout, 0.3)
    assert found[5:8].isnan().all()
    assert torch.equal(found[:5], expected[:5])
    assert torch.equal(found[8:], expected[8:])


def test_several_threads_compute_the_same_bits():
    segments, n = segments_of([(9, [30, 4]), (70, [6]), (3, [2, 2])])
    layout, (operands, grad) = make_layout(segments), operands_of(n, 4, 2, 16)

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = attend(*operands, layout, 0.3)
            return found, *torch.autograd.grad(found, operands, grad)
        finally:
            torch.set_num_threads(before)

    assert all(torch.equal(a, b) for a, b in zip(run(1), run(3), strict=True))
