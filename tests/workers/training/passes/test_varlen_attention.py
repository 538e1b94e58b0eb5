"""Attention in two calls without masks: its values and gradients are those of tiles with masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.gpu.as_if_cuda import as_if_cuda
from workers.training.passes import varlen_attention
from workers.training.passes.packed_attention import PackedAttention, Segment
from workers.training.passes.varlen_attention import attend, make_layout, varlen_backward, varlen_forward
from workers.training.passes.varlen_trial import SEGMENTS, is_right

CPU = torch.device("cpu")
STREAMS = {
    "groups": ((0, 5, (3, 1, 4)), (13, 2, (6, 2))),
    "an empty completion": ((0, 3, (0, 2, 0)), (5, 4, (1, 1))),
    "one completion": ((0, 4, (3,)), (7, 2, (2, 3)), (14, 3, (1,))),
    "no group": ((0, 4, (3,)), (7, 2, (0, 0)), (9, 3, (0,))),
}


def operands(segments: Any, heads: int, key_heads: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = sum(prompt + sum(completions) for _, prompt, completions in segments)
    shapes = [(n, heads, width), (n, key_heads, width), (n, key_heads, width)]
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def by_tiles(segments: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    attention = PackedAttention([Segment(*segment) for segment in segments], CPU)
    given = (operand.transpose(0, 1)[None] for operand in (query, key, value))
    return attention._by_tile(*given, scaling)[0].view(query.shape)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("segments", STREAMS.values(), ids=STREAMS)
def test_values_and_gradients_are_those_of_tiles(segments: Any, key_heads: int) -> None:
    given = operands(segments, 4, key_heads, 8, torch.float64)
    found = attend(*given, make_layout(segments, CPU), 0.3)
    expected = by_tiles(segments, *given, 0.3)
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).view(found.shape)
    mine = torch.autograd.grad((found * weights).sum(), given)
    theirs = torch.autograd.grad((expected * weights).sum(), given)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_is_that_of_finite_differences() -> None:
    segments = STREAMS["groups"]
    layout = make_layout(segments, CPU)
    given = operands(segments, 2, 1, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *some: attend(*some, layout, 0.5), given)


def test_bf16_is_near_fp32() -> None:
    given = operands(SEGMENTS, 4, 2, 16, torch.float32)
    layout = make_layout(SEGMENTS, CPU)
    expected = attend(*given, layout, 0.25)
    slopes = torch.autograd.grad(expected.square().sum(), given)
    rounded = [operand.detach().bfloat16().requires_grad_() for operand in given]
    found = attend(*rounded, layout, 0.25)
    assert (found - expected).norm() < 1e-2 * expected.norm()
    for mine, exact in zip(torch.autograd.grad(found.float().square().sum(), rounded), slopes, strict=True):
        assert (mine - exact).norm() < 2e-2 * exact.norm()


def test_two_calls_a_layer_and_nothing_of_the_size_of_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any) -> Any:
        calls.append([bound.tolist() for bound in args[3:5]])
        return varlen_forward(*args)

    monkeypatch.setattr(varlen_attention, "varlen_forward", counted)
    segments = STREAMS["groups"]
    attend(*operands(segments, 2, 1, 8, torch.float32), make_layout(segments, CPU), 0.3)
    runs = [0, 5, 8, 9, 13, 15, 21, 23]
    assert calls == [[runs, runs], [[0, 8, 16], [0, 5, 7]]]


def test_the_operations_keep_to_what_they_declare() -> None:
    segments = STREAMS["groups"]
    query, key, value = (each.detach() for each in operands(segments, 2, 1, 8, torch.float32))
    own = make_layout(segments, CPU).own
    out, sums = varlen_forward(query, key, value, *own, 0.3)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(varlen_forward, (query, key, value, *own, 0.3), test_utils=checks)
    torch.library.opcheck(
        varlen_backward, (torch.ones_like(out), query, key, value, out, sums, *own, 0.3), test_utils=checks
    )


@pytest.fixture
def fresh_trials() -> Any:
    is_right.cache_clear()
    yield
    is_right.cache_clear()


def test_a_right_attention_is_trusted(fresh_trials: None, caplog: pytest.LogCaptureFixture) -> None:
    assert is_right(4, 2, 16, 16, torch.bfloat16, CPU)
    assert caplog.messages == []


def looks_ahead(*args: Any) -> Any:
    return varlen_forward(*args[:-2], False, args[-1])


def fails(*_: Any) -> Any:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


def off_by_a_tenth(*args: Any) -> Any:
    query, key, value = varlen_backward(*args)
    return query, key * 1.1, value


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("varlen_forward", looks_ahead, "of their size off"),
        ("varlen_forward", fails, "only supports Ampere"),
        ("varlen_backward", off_by_a_tenth, "of their size off"),
        ("varlen_backward", fails, "only supports Ampere"),
    ],
)
def test_a_wrong_or_missing_attention_is_not_and_tiles_are_told(
    name: str, wrong: Any, reason: str, fresh_trials: None, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(varlen_attention, name, wrong)
    assert not is_right(4, 2, 16, 16, torch.bfloat16, CPU)
    (record,) = caplog.records
    assert record.message == "attention_by_tiles"
    assert reason in record.reason


@pytest.mark.parametrize(("width", "value_width"), [(12, 12), (264, 264), (16, 8)])
def test_heads_that_the_library_does_not_take_go_by_tiles(
    width: int, value_width: int, fresh_trials: None
) -> None:
    assert not is_right(4, 2, width, value_width, torch.bfloat16, CPU)


def test_a_gpu_in_sixteen_bits_takes_it_and_in_fp32_makes_masks_there(fresh_trials: None) -> None:
    segments = [Segment(*segment) for segment in STREAMS["groups"]]
    given = [each.detach().transpose(0, 1)[None] for each in operands(segments, 4, 2, 8, torch.float32)]
    expected = PackedAttention(segments, CPU)(torch.nn.Module(), *given, None)
    with as_if_cuda() as device:
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            attention = PackedAttention(segments, torch.device("cuda", 0))
            moved = [each.to("cuda", dtype) for each in given]
            attention(torch.nn.Module(), *moved, None)
            device.counts.clear()
            found = attention(torch.nn.Module(), *moved, None)
            ran = dict(device.counts.kernels)
            assert not device.counts.copies
            assert not device.counts.waits
            assert (found.cpu().float() - expected).norm() < tolerance * expected.norm()
            assert ran.get("cherry::varlen_forward", 0) == (2 if dtype == torch.bfloat16 else 0)
