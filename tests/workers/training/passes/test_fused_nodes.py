"""Norm, rotation and gate by compiled kernels, against torch's own operations in double precision."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import rms_norm, silu

from workers.training.kernels.tiles import COLUMNS, ROWS, add_product, multiply
from workers.training.passes import fused_nodes

EPS = 1e-6


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"], autouse=True)
def threads(request):
    """Of the sizes below, those of 200 rows are shared out among three threads."""
    assert 200 // fused_nodes.LEAST_ROWS == 3
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def numbers(*size, seed=0, scale=1.0):
    values = scale * torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


def assert_same(run, expected, operands):
    """Values and gradients of a function of fp32 tensors, and of the same one of fp64 tensors."""
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    found, wanted = run(*operands), expected(*exact)
    grads = [numbers(*part.shape, seed=9) for part in wanted]
    gradients = torch.autograd.grad(found, operands, grads)
    right = torch.autograd.grad(wanted, exact, [grad.double() for grad in grads])
    for mine, theirs in zip((*found, *gradients), (*wanted, *right), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 64), (5, 3, 16), (50, 4, 16)])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_norm(size, scale):
    assert_same(
        lambda x, w: [fused_nodes.norm(SimpleNamespace(weight=w, variance_epsilon=EPS), x)],
        lambda x, w: [rms_norm(x, x.shape[-1:], w, EPS)],
        [numbers(*size, scale=scale), numbers(size[-1], seed=1)],
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 64)])
def test_norm_of_a_sum_which_goes_on_itself(size):
    def expected(x, y, w):
        return x + y, rms_norm(x + y, x.shape[-1:], w, EPS)

    assert_same(
        lambda x, y, w: fused_nodes.add_and_norm(SimpleNamespace(weight=w, variance_epsilon=EPS), x, y),
        expected,
        [numbers(*size), numbers(*size, seed=1), numbers(size[-1], seed=2)],
    )


def test_states_without_a_gradient_are_given_none():
    weight = SimpleNamespace(weight=numbers(4).detach(), variance_epsilon=EPS)
    states, more = numbers(3, 4).detach(), numbers(3, 4)
    total, normed = fused_nodes.add_and_norm(weight, states, more)
    (total + normed).sum().backward()
    assert states.grad is None
    assert more.grad.abs().sum() > 0


@pytest.mark.parametrize(("n", "heads", "width"), [(1, 1, 2), (7, 3, 8), (200, 4, 64)])
def test_rotation(n, heads, width):
    angles = numbers(n, width // 2).detach().double().repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    sign = torch.cat([-torch.ones(width // 2), torch.ones(width // 2)])

    def expected(x):
        parts = x.view(n, heads, width)
        swapped = parts.roll(width // 2, -1)
        return [(parts * cos[:, None] + swapped * (sin * sign)[:, None]).flatten(1)]

    assert_same(
        lambda x: [fused_nodes.rotate(x * 1.0, cos.float(), (sin * sign).float())],
        expected,
        [numbers(n, heads * width)],
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 64)])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_gate(size, scale):
    assert_same(
        lambda g, u: [fused_nodes.gated(g, u)],
        lambda g, u: [silu(g) * u],
        [numbers(*size, scale=scale), numbers(*size, seed=1)],
    )


def test_a_gate_far_from_zero_is_open_or_shut():
    gate = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]]).requires_grad_()
    found = fused_nodes.gated(gate, torch.full((1, 5), 2.0))
    assert found.tolist() == [[0, 0, 0, 200, 2e4]]
    (slope,) = torch.autograd.grad(found.sum(), gate)
    assert slope.tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize(("m", "n", "terms"), [(1, 1, 1), (4, 16, 0), (5, 17, 3), (30, 70, 129)])
def test_tiles_multiply(m, n, terms):
    """Operands with room around them, one of them also transposed."""
    rng = np.random.default_rng(0)
    rows, columns = -(-m // ROWS) * ROWS, -(-n // COLUMNS) * COLUMNS
    a, b = (
        rng.standard_normal(size).astype(np.float32) for size in ((rows, terms + 3), (terms + 2, columns))
    )
    expected = a[:m, :terms].astype(np.float64) @ b[2:, :n]
    c = np.zeros((rows, columns), np.float32)
    multiply(c, columns, a, terms + 3, b, 2 * columns, columns, m, n, terms)
    np.testing.assert_allclose(c[:m, :n], expected, atol=1e-5)
    turned = np.ascontiguousarray(a.T)
    add_product(c, 0, columns, turned, 1, rows, b, 2 * columns, columns, m, n, terms)
    np.testing.assert_allclose(c[:m, :n], 2 * expected, atol=2e-5)
