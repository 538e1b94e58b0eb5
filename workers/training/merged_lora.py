"""Train a LoRA layer through base + delta already added up, which the sampling copy holds anyway.

PEFT runs three products forward (base, A, B) and five more backward. With the sum at hand forward is one, and
backward is one for the input and four thin ones for A and B. Value and gradient are the same. fp32 only,
because a 16-bit sum loses a small delta.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

ADAPTER = "default"


def train_through_sum(layer: Any, summed: nn.Linear) -> None:
    """Let a PEFT layer compute with `summed.weight` whenever that holds the sum of its weights as they are.

    Whether it does is told by `mark_summed` and `forget_sum`; torch's version counters see writes to A or B
    too, but for those of a fused optimizer. A layer that is more than a plain linear one with one plain
    adapter is left as it is.
    """
    if _is_plain(layer) and summed.weight.dtype == torch.float32:
        layer.forward = _SummedForward(layer, summed)


def mark_summed(layer: Any) -> None:
    """Say that the sum holds the layer's weights as they are at this moment."""
    if isinstance(layer.forward, _SummedForward):
        layer.forward.versions = layer.forward.current_versions()


def forget_sum(layer: Any) -> None:
    """Say that the layer's weights have changed since."""
    if isinstance(layer.forward, _SummedForward):
        layer.forward.versions = None


def _is_plain(layer: Any) -> bool:
    return (
        type(layer) is LoraLinear
        and type(layer.get_base_layer()) is nn.Linear
        and list(layer.lora_A) == [ADAPTER]
        and not layer.fan_in_fan_out
        and not layer.lora_variant
        and not layer.lora_bias[ADAPTER]
    )


class _SummedForward:
    """Takes the place of a layer's `forward`."""

    def __init__(self, layer: Any, summed: nn.Linear) -> None:
        self._layer = layer
        self._peft_forward = layer.forward
        self._summed = summed
        self.versions: tuple[int, int] | None = None

    def current_versions(self) -> tuple[int, int]:
        """They change with every write to A or B."""
        return (
            self._layer.lora_A[ADAPTER].weight._version,
            self._layer.lora_B[ADAPTER].weight._version,
        )

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self._layer
        if layer.disable_adapters or self.versions != self.current_versions():
            found: Tensor = self._peft_forward(x, *args, **kwargs)
            return found
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        out: Tensor = _summed_linear(x, self._summed.weight, a, b, layer.scaling[ADAPTER])
        bias = layer.get_base_layer().bias
        return out if bias is None else out + bias


class _SummedLinear(torch.autograd.Function):
    """x (..., I) with the sum (O, I) of a frozen weight and scale * b (O, r) a (r, I) -> (..., O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, summed: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, summed, a, b)
        ctx.scale = scale
        return nn.functional.linear(x, summed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, summed, a, b = ctx.saved_tensors
        rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)
        grad_x = grad @ summed if ctx.needs_input_grad[0] else None
        grad_a = (grad_rows @ b).T @ rows * ctx.scale
        grad_b = grad_rows.T @ (rows @ a.T) * ctx.scale
        return grad_x, None, grad_a, grad_b, None


_summed_linear: Any = _SummedLinear.apply
