"""Training a LoRA layer beside a frozen base in bf16: products of 16 bits, and weights and gradients in fp32.

PEFT casts the input of each layer to fp32, keeps that copy, and multiplies it there. Here base and branch
read the same bf16 input; products add up in fp32 inside, as those of the base do, and A and B stay fp32 with
fp32 gradients. A quantised base that computes in bf16 is such a base too.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from workers.training.model.quantised import QuantisedLinear

log = logging.getLogger(__name__)

ADAPTER = "default"


def is_plain(layer: Any) -> bool:
    """Says whether a PEFT layer is a linear one with one plain adapter, and no more."""
    return (
        type(layer) is LoraLinear
        and type(layer.get_base_layer()) in (nn.Linear, QuantisedLinear)
        and list(layer.lora_A) == [ADAPTER]
        and not layer.fan_in_fan_out
        and not layer.lora_variant
        and not layer.lora_bias[ADAPTER]
    )


class HalfForward:
    """Takes the place of such a layer's `forward`."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._peft_forward = layer.forward
        self.is_base_alone = False

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Computes (..., I) -> (..., O)."""
        layer = self._layer
        base = layer.get_base_layer()
        if self.is_base_alone or layer.disable_adapters:
            found: Tensor = base(x, *args, **kwargs)
        elif x.dtype != torch.bfloat16 or not _is_half(base) or args or kwargs:
            found = self._peft_forward(x, *args, **kwargs)  # as in a trial in fp32 (arithmetic.py)
        else:
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            found = _HalfLora.apply(x, base, a, b, layer.scaling[ADAPTER])  # type: ignore[no-untyped-call]
        return found


def _is_half(base: nn.Linear) -> bool:
    """Says whether a base layer multiplies bf16 by bf16; a quantised one does where it reads that."""
    return isinstance(base, QuantisedLinear) or base.weight.dtype == torch.bfloat16


class _HalfLora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, base: nn.Linear, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows, down, up = x.flatten(0, -2), a.to(x.dtype), b.to(x.dtype)
        inner = rows @ down.T
        out: Tensor = base(rows).addmm_(inner, up.T, alpha=scale)
        ctx.save_for_backward(rows, inner, down, up)
        ctx.base, ctx.scale = base, scale  # a frozen base stays as it is
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, down, up = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2)
        of_inner = grad_rows @ up
        of_a = wide_product(of_inner.T, rows).mul_(ctx.scale)
        of_b = wide_product(grad_rows.T, inner).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (grad_rows @ _weight(ctx.base)).addmm_(of_inner, down, alpha=ctx.scale)
            of_x = of_x.view(*grad.shape[:-1], -1)
        return of_x, None, of_a, of_b, None


def _weight(base: nn.Linear) -> Tensor:
    """Returns the weight (O, I) of a base layer in bf16; of a quantised one it is made for this product."""
    return base.packed.weight(torch.bfloat16) if isinstance(base, QuantisedLinear) else base.weight


@torch.library.custom_op("cherry::wide_product", mutates_args=(), device_types="cpu")
def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """Computes (n, k), (k, m) -> (n, m) in fp32, of operands in 16 bits."""
    return left.float() @ right.float()


@wide_product.register_fake
def _fake(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(len(left), right.shape[1], dtype=torch.float32)


@wide_product.register_kernel("cuda")
def _on_gpu(left: Tensor, right: Tensor) -> Tensor:
    if _gives_fp32(left.device):
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


@cache
def _gives_fp32(device: torch.device) -> bool:
    """Says whether a product of 16 bits can be given in fp32, without being rounded on the way."""
    ones = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    try:
        torch.mm(ones, ones, out_dtype=torch.float32)
    except (RuntimeError, TypeError) as error:
        log.warning("adapter_gradients_rounded", extra={"reason": str(error).partition("\n")[0]})
        return False
    return True
