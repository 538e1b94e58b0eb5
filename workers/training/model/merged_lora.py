"""Training a LoRA layer through base + delta already added up, which the sampling copy holds anyway.

PEFT runs three products forward (base, A, B) and five more backward. With the sum at hand forward is one, and
backward is one for the input and four thin ones for A and B. Value and gradient are the same. fp32 only,
because a 16-bit sum loses a small delta (for bf16: half_lora.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from workers.training.model.half_lora import ADAPTER, HalfForward, is_plain
from workers.training.model.quantised import QuantisedLinear


def train_through_sum(layer: Any, summed: nn.Linear) -> None:
    """Lets a PEFT layer compute with `summed.weight` whenever that holds the sum of its weights as they are.

    Whether it does is told by `mark_summed` and `forget_sum`; torch's version counters see writes to A or B
    too, but for those of a fused optimizer. In bf16, and over a quantised base, a layer computes beside its
    base (half_lora.py). One that is more than a plain linear one with one plain adapter is left as it is.
    """
    if is_plain(layer) and summed.weight.dtype == torch.float32:
        layer.forward = _SummedForward(layer, summed)
    elif is_plain(layer) and (summed.weight.dtype == torch.bfloat16 or isinstance(summed, QuantisedLinear)):
        layer.forward = HalfForward(layer)


def mark_summed(layer: Any) -> None:
    """Takes note that the sum holds the layer's weights as they are at this moment."""
    if isinstance(layer.forward, _SummedForward):
        layer.forward.versions = layer.forward.current_versions()


def forget_sum(layer: Any) -> None:
    """Takes note that the layer's weights have changed since."""
    if isinstance(layer.forward, _SummedForward):
        layer.forward.versions = None


@contextmanager
def bases_alone(model: Any, layers: Sequence[Any]) -> Iterator[None]:
    """Makes PEFT layers of a model compute without their adapters inside.

    PEFT's own switch goes through all modules and their weights, twice, for as long as a small model's layers
    take to compute (docs/benchmarks.md: 3 to 15 % of a reference pass).
    """
    forwards = [layer.forward for layer in layers]
    if not all(isinstance(forward, _SummedForward | HalfForward) for forward in forwards):
        with model.disable_adapter():
            yield
        return
    for forward in forwards:
        forward.is_base_alone = True
    try:
        yield
    finally:
        for forward in forwards:
            forward.is_base_alone = False


class _SummedForward:
    """Takes the place of a layer's `forward`."""

    def __init__(self, layer: Any, summed: nn.Linear) -> None:
        self._layer = layer
        self._peft_forward = layer.forward
        self._summed = summed
        self.versions: tuple[int, int] | None = None
        self.is_base_alone = False

    def current_versions(self) -> tuple[int, int]:
        """Returns numbers that change with every write to A or B."""
        return (
            self._layer.lora_A[ADAPTER].weight._version,
            self._layer.lora_B[ADAPTER].weight._version,
        )

    def is_current(self) -> bool:
        """Says whether the sum is what the layer computes at this moment."""
        is_whole = not (self.is_base_alone or self._layer.disable_adapters)
        return is_whole and self.versions == self.current_versions()

    def term(self) -> _Term:
        """Returns what the layer computes, but for its bias."""
        layer = self._layer
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        return _Term(self._summed.weight, a, b, layer.scaling[ADAPTER])

    def with_bias(self, out: Tensor) -> Tensor:
        bias = self._layer.get_base_layer().bias
        return out if bias is None else out + bias

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.is_current():
            forward = self._layer.get_base_layer() if self.is_base_alone else self._peft_forward
            found: Tensor = forward(x, *args, **kwargs)
            return found
        return self.with_bias(*_through_sums(x, [self.term()]))


def side_by_side(layers: Sequence[Any], x: Tensor) -> list[Tensor]:
    """Returns what each of several layers computes from the same input: (..., I) -> (..., O) each.

    Layers that hold their sums share one node of the autograd graph: its products with A are one.
    """
    forwards = [layer.forward for layer in layers]
    if all(isinstance(forward, _SummedForward) and forward.is_current() for forward in forwards):
        found = _through_sums(x, [forward.term() for forward in forwards])
        return [forward.with_bias(out) for forward, out in zip(forwards, found, strict=True)]
    return [layer(x) for layer in layers]


class _Term(NamedTuple):
    """Holds the sum (O, I) of a frozen weight and scale * b (O, r) a (r, I)."""

    summed: Tensor
    a: Tensor
    b: Tensor
    scale: float


def _through_sums(x: Tensor, terms: Sequence[_Term]) -> tuple[Tensor, ...]:
    """Computes x (..., I) -> (..., O) for each term."""
    scales = [term.scale for term in terms]
    weights = [weight for term in terms for weight in term[:3]]
    found: tuple[Tensor, ...] = _SummedLinears.apply(x, scales, *weights)  # type: ignore[no-untyped-call]
    return found


class _SummedLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: Sequence[float], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        ctx.scales = scales
        return tuple(nn.functional.linear(x, summed) for summed in weights[::3])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        sums, downs, ups = weights[::3], weights[1::3], weights[2::3]
        rows = x.flatten(0, -2)
        ranks = [len(a) for a in downs]
        grad_rows = [grad.flatten(0, -2) for grad in grads]
        inner = torch.split(rows @ torch.cat(downs).T, ranks, 1)
        of_inner = torch.cat([grad @ b for grad, b in zip(grad_rows, ups, strict=True)], 1)
        grad_downs = torch.split(of_inner.T @ rows, ranks)
        found: list[Tensor | None] = []
        for scale, grad, projected, grad_a in zip(ctx.scales, grad_rows, inner, grad_downs, strict=True):
            # Thin rows times wide columns: the other way round takes half as long again.
            found += [None, grad_a * scale, (projected.T @ grad).T * scale]
        return _of_input(ctx, grad_rows, sums, x), None, *found


def _of_input(ctx: Any, grads: Sequence[Tensor], sums: Sequence[Tensor], x: Tensor) -> Tensor | None:
    if not ctx.needs_input_grad[0]:
        return None
    total = grads[0] @ sums[0]
    for grad, summed in zip(grads[1:], sums[1:], strict=True):
        total.addmm_(grad, summed)
    return total.view(x.shape)
