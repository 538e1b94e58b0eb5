"""Tokens drawn from logits, and the numbers they are drawn with."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.training.base.randomness import keyed_seed, shuffled, uniforms
from workers.training.sampling.draw import draw, draw_each


@pytest.fixture(autouse=True, scope="module")
def compiled():
    """The first call compiles, which takes longer than hypothesis gives a test."""
    draw(torch.zeros(1, 2), torch.zeros(1), 1.0)


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=300),
    st.floats(0, 1, exclude_max=True, width=16),
    st.floats(0.01, 0.99),
)
def test_nothing_outside_the_nucleus_is_drawn(values, uniform, top_p):
    logits = torch.tensor([values])
    token, logprob = draw(logits, torch.tensor([uniform]), 1.0, top_p)
    probs = torch.softmax(logits[0].double(), -1)
    more_likely = probs[probs > probs[token]].sum()
    assert more_likely < top_p + 1e-5
    assert logprob.item() == pytest.approx(probs[token].log().item(), abs=1e-4)


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=300),
    st.floats(0, 1, exclude_max=True, width=16),
)
def test_a_draw_is_where_the_running_sum_passes_the_uniform_number(values, uniform):
    logits = torch.tensor([values])
    (token,), _ = draw(logits, torch.tensor([uniform]), 1.0)
    sums = torch.softmax(logits[0].double(), -1).cumsum(-1)
    assert sums[token] >= uniform - 1e-5
    assert token == 0 or sums[token - 1] <= uniform + 1e-5


def test_a_large_vocabulary_is_drawn_from_by_its_running_sum():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(1, 1000, generator=generator) * 3
    uniform = torch.rand(2000, generator=generator)
    found, logprobs = draw(logits.expand(2000, -1), uniform, 0.7)
    sums = torch.softmax(logits[0].double() / 0.7, -1).cumsum(-1)
    off = found - torch.searchsorted(sums, uniform.double())
    assert (off != 0).float().mean() < 0.002  # where both are within a rounding of each other
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0] / 0.7, -1)[found])


@pytest.mark.parametrize("top_p", [0.0, 1e-45])
def test_the_smallest_nucleus_is_the_most_likely_token(top_p):
    logits = torch.tensor([[0.1, 2.0, 1.9], [3.0, 0.0, 3.1]])
    uniform = torch.tensor([0.99, 0.0])
    assert draw(logits, uniform, 1.0, top_p)[0].tolist() == [1, 2]
    ones, top_ps = np.ones(2, np.float32), np.array([top_p, 1.0], np.float32)
    assert draw_each(logits, uniform, ones, top_ps)[0].tolist() == [1, 0]


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([[0.5, 0.0, 0.2, 0.3]])).expand(4000, 4)
    seeds = np.array([keyed_seed("test", i) for i in range(4000)], dtype=np.uint64)
    found, logprobs = draw(logits, torch.from_numpy(uniforms(seeds, np.zeros(4000, np.int64))), 1.0)
    shares = torch.bincount(found, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0, 0.2, 0.3]), atol=0.03, rtol=0)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.5, 0, 0.2, 0.3])[found])


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=6), st.integers(0, 2**24 - 1))
def test_an_impossible_token_is_never_drawn(values, count):
    logits = torch.tensor([[-torch.inf, *values, -torch.inf]])
    for uniform in (0.0, count * 2**-24, 1 - 2**-24):
        token, logprob = draw(logits, torch.tensor([uniform]), 1.0)
        assert 1 <= token.item() <= len(values)
        assert logprob.isfinite()


def test_uniform_numbers_are_uniform_and_independent():
    seeds = np.array([keyed_seed("a", i) for i in range(500)], dtype=np.uint64)
    drawn = np.stack([uniforms(seeds, np.full(500, i)) for i in range(100)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(drawn.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.15
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.35


def test_an_order_holds_every_row_once_and_differs_by_key():
    assert sorted(shuffled(50, "order", 1, 1)) == list(range(50))
    assert shuffled(50, "order", 1, 1) != shuffled(50, "order", 1, 2)
    assert shuffled(0, "order", 1, 1) == []


def test_rows_with_options_of_their_own_draw_what_they_draw_alone():
    generator = torch.Generator().manual_seed(5)
    logits, uniform = torch.randn(60, 300, generator=generator) * 3, torch.rand(60, generator=generator)
    temperatures = np.resize(np.array([0.0, 1.0, 0.3, 1.9, 0.7], np.float32), 60)
    top_ps = np.resize(np.array([1.0, 0.5, 0.9], np.float32), 60)
    for rows in (slice(None), slice(0, 60, 5), slice(1, 60, 15), slice(2, 60, 15)):
        tokens, logprobs = draw_each(logits[rows], uniform[rows], temperatures[rows], top_ps[rows])
        for i in range(len(tokens)):
            options = float(temperatures[rows][i]), float(top_ps[rows][i])
            token, logprob = draw(logits[rows][i : i + 1], uniform[rows][i : i + 1], *options)
            assert (tokens[i], logprobs[i]) == (token, logprob)
