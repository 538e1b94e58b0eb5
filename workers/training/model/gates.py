"""The gate of an MLP in 16 bits: its activation is computed again in the backward pass, not kept.

Autograd keeps four tensors of a SwiGLU as wide as it is inside: gate, its activation, up, and their product.
The activation is a function of the gate alone and costs less than to read it again, so three are kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

SEPARATE = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
"""What transformers' MLPs of this kind compute, in the words of their source,"""
JOINED = (
    "up_states = self.gate_up_proj(hidden_states)",
    "gate, up_states = up_states.chunk(2, dim=-1)",
    "up_states = up_states * self.activation_fn(gate)",
    "return self.down_proj(up_states)",
)
"""and those of Phi 3 and GLM, whose gate and up are one product."""


def remake_gates(model: Any) -> int:
    """Lets each gated MLP of a model keep three tensors in place of four; returns how many these are.

    Values and gradients stay the same bits. An MLP whose class computes anything else is left as it is.
    Source: SwiGLU, Shazeer 2020, arXiv:2002.05202.
    """
    found = 0
    for module in model.modules():
        if "forward" not in vars(module) and (forward := _forward_of(type(module))):
            module.forward = partial(forward, module)
            found += 1
    return found


def _forward_of(kind: Any) -> Callable[[Any, Tensor], Tensor] | None:
    """Returns what takes the place of a class's `forward`, if it is one of the known."""
    if not kind.__name__.endswith("MLP"):
        return None
    lines = [line.strip() for line in inspect.getsource(kind.forward).splitlines()]
    body = tuple(line for line in lines[1:] if line)
    if body in ((f"return {SEPARATE}",), (f"down_proj = {SEPARATE}", "return down_proj")):
        return _separate
    return _joined if body == JOINED else None


def _separate(module: Any, x: Tensor) -> Tensor:
    found: Tensor = module.down_proj(gated(module.act_fn, module.gate_proj(x), module.up_proj(x)))
    return found


def _joined(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_up_proj(x).chunk(2, dim=-1)
    found: Tensor = module.down_proj(gated(module.activation_fn, gate, up))
    return found


def gated(activate: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    """Computes activate(gate) * up: (..., I), (..., I) -> (..., I); keeps these two for the backward pass."""
    found: Tensor = _Gated.apply(activate, gate, up)  # type: ignore[no-untyped-call]
    return found


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activate: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activate = activate
        return activate(gate) * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            again = gate.detach().requires_grad_()
            activated = ctx.activate(again)
        (of_gate,) = torch.autograd.grad(activated, again, grad * up)
        return None, of_gate, grad * activated.detach()
