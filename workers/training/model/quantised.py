"""A frozen base in 4 or 8 bits: linear layers whose weights bitsandbytes has quantised.

The numbers are those that `transformers` makes of the same folder with a `BitsAndBytesConfig`: NF4 in blocks
of 64 with quantised scales (QLoRA, arXiv:2305.14314), or int8 by rows (arXiv:2208.07339). What is computed
with them is the product with the dequantised weight, in the dtype of the arithmetic. For NF4 that is
bitsandbytes' own product. Its 8-bit layers also round what they read, by columns that depend on the batch, so
that a completion would depend on its neighbours; here the weights alone have 8 bits.

One layer's weight at a time is dequantised, for as long as it is multiplied; no sum of base and adapter is
kept. O outputs, I inputs.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from methods.model_files.precision import NOT_INSTALLED, QUANTISATION, is_installed
from workers.training.base.device_memory import free_bytes
from workers.training.base.errors import ModelInvalid
from workers.training.model.stored_types import StoredTypes

BLOCK = 64
"""Numbers that share a scale in NF4 (arXiv:2305.14314): the convention of bitsandbytes and transformers."""
INT8_MOST = 127
"""What the largest number of a row is in int8. It follows from its eight bits: arXiv:2208.07339."""
SHARE_FOR_MEASURING = 2
"""The part of the free memory that merged weights may take while they are measured. Chosen, not measured."""


class Added(Protocol):
    """Is what an adapter adds to a layer."""

    def add_to(self, weight: Tensor) -> Tensor:
        """Adds what it adds to the weight, (O, I), to one in fp32, in place."""

    def size(self) -> float:
        """Returns the Euclidean norm of what it adds to the weight."""

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (..., I) -> (..., O)."""


class Packed(Protocol):
    """Holds a quantised weight. It never changes, so that a deep copy of it is itself."""

    @property
    def codes(self) -> Tensor:
        """Returns the quantised numbers, (O, I), perhaps several in one."""

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Returns the dequantised weight, (O, I): computed in fp32 and rounded once to `dtype`."""

    def product(self, states: Tensor) -> Tensor:
        """Computes (..., I) -> (..., O) with the weight in the dtype of the states."""


@cache
def library() -> Any:
    """Returns bitsandbytes. Raises `ModelInvalid` where it is not installed, and says what to do."""
    if not is_installed():
        raise ModelInvalid(NOT_INSTALLED.format(precision="int8' or 'nf4"))
    import bitsandbytes

    return bitsandbytes


@dataclass(frozen=True)
class Nf4:
    """Is a weight in NF4: two numbers in a byte of `codes`, (O, I / 2)."""

    codes: Tensor
    state: Any

    @classmethod
    def of(cls, weight: Tensor, compute: torch.dtype) -> Nf4:
        """Quantises a weight, (O, I), on its device."""
        codes, state = library().functional.quantize_4bit(
            weight.float(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        state.dtype = compute
        return cls(codes.view(weight.shape[0], -1), state)

    def __deepcopy__(self, _memo: Any) -> Nf4:
        return self

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Returns the dequantised weight, (O, I): computed in fp32 and rounded once to `dtype`."""
        state = copy.copy(self.state)
        state.dtype = dtype
        found: Tensor = library().functional.dequantize_4bit(self.codes.view(-1, 1), state)
        return found

    def product(self, states: Tensor) -> Tensor:
        """Computes (..., I) -> (..., O) with the weight in the dtype of the states.

        Where algorithms are to be deterministic torch multiplies: it cannot know of bitsandbytes' kernels
        whether they are.
        """
        if torch.are_deterministic_algorithms_enabled():
            return _product(states, self)
        found: Tensor = library().matmul_4bit(states, self.codes.view(-1, 1), quant_state=self.state)
        return found


@dataclass(frozen=True)
class Int8:
    """Is a weight in int8: `codes`, (O, I), times the `scales` of its rows, (O,), over 127."""

    codes: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weight: Tensor, _compute: torch.dtype) -> Int8:
        """Quantises a weight, (O, I), on its device."""
        codes, scales, _ = library().functional.int8_vectorwise_quant(weight.to(torch.float16))
        return cls(codes, scales)

    def __deepcopy__(self, _memo: Any) -> Int8:
        return self

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Returns the dequantised weight, (O, I): computed in fp32 and rounded once to `dtype`."""
        return self.codes.to(dtype).mul_(self.scales[:, None] * (1.0 / INT8_MOST))

    def product(self, states: Tensor) -> Tensor:
        """Computes (..., I) -> (..., O) with the weight in the dtype of the states."""
        return _product(states, self)


def _product(states: Tensor, packed: Packed) -> Tensor:
    found: Tensor = _Product.apply(states, packed)  # type: ignore[no-untyped-call]
    return found


class _Product(torch.autograd.Function):
    """Multiplies by the dequantised weight. It keeps nothing but the codes for the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: Packed) -> Tensor:
        ctx.packed = packed
        return nn.functional.linear(states, packed.weight(states.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.packed.weight(grad.dtype), None


KINDS: Mapping[str, type[Nf4] | type[Int8]] = {"nf4": Nf4, "int8": Int8}


class QuantisedLinear(nn.Linear):
    """Is a linear layer with a quantised weight, which is frozen, and perhaps an adapter beside it.

    Its state dict holds what is delivered of it: the sum of the dequantised weight and the adapter, in the
    dtype that the base's files have, on the CPU.

    Attributes:
        branch: what an adapter adds, where this is a layer of the sampling copy; None without any.
        stored: the dtype of the weight in the base's files.
    """

    branch: Added | None = None

    def __init__(self, layer: nn.Linear, packed: Packed, stored: torch.dtype) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.packed = packed
        self.stored = stored
        self.weight = nn.Parameter(packed.codes, requires_grad=False)
        self.bias = layer.bias
        self._merged: _Merged | None = None
        self.eval()

    def forward(self, input: Tensor) -> Tensor:
        """Computes (..., I) -> (..., O), in the dtype of the input."""
        if self._merged is not None:
            return nn.functional.linear(input, self._merged.weight(self, input.dtype), self.bias)
        found = self.packed.product(input)
        if self.bias is not None:
            found = found + self.bias
        return found if self.branch is None else (found + self.branch(input)).to(found.dtype)

    def summed(self) -> Tensor:
        """Returns the dequantised weight with the adapter, (O, I), in fp32."""
        weight = self.packed.weight(torch.float32)
        return weight if self.branch is None else self.branch.add_to(weight)

    @property
    def merged(self) -> Tensor | bool:
        """Returns the merged weight that the layer holds and computes with, if it does.

        It is True where the weight is made anew in each pass, and False where base and adapter are apart.
        """
        if self._merged is None:
            return False
        return True if self._merged.held is None else self._merged.held

    def merge(self, held_in: torch.dtype | None) -> None:
        """Lets the layer compute with the merged weight as it is delivered, until `unmerge`.

        It is held in the dtype `held_in`; with None it is made anew in each pass, to the same bits.
        """
        self._merged = None  # what it held goes first
        self._merged = _Merged() if held_in is None else _Merged(self.summed().to(self.stored).to(held_in))

    def unmerge(self) -> None:
        """Lets the layer compute base and adapter apart again."""
        self._merged = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.summed().to(self.stored).cpu()


class _Merged:
    """Is the merged weight of a layer for as long as it is measured."""

    def __init__(self, held: Tensor | None = None) -> None:
        self.held = held

    def weight(self, layer: QuantisedLinear, dtype: torch.dtype) -> Tensor:
        found = layer.summed().to(layer.stored) if self.held is None else self.held
        return found.to(dtype)


def quantise(
    model: Any, precision: str, device: torch.device, compute: torch.dtype, types: StoredTypes
) -> None:
    """Quantises the linear layers of a model in place, on `device`, and moves and casts what is left.

    Output layer, embeddings and norms keep their numbers; they and biases are cast to `compute`. One layer
    after the other leaves the memory that it was read into. Raises `ModelInvalid` for a model with matrices
    that bitsandbytes cannot hold.
    """
    check_layers(model, precision)
    for name in linear_layers(model):
        layer = model.get_submodule(name)
        packed = KINDS[precision].of(layer.weight.data.to(device), compute)
        model.set_submodule(name, QuantisedLinear(layer, packed, types.of(f"{name}.weight")))
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(compute)
    model.to(device)  # buffers keep their dtypes


def linear_layers(model: Any) -> list[str]:
    """Returns the names of the layers that are quantised: all linear ones but the output layer."""
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    ]


def check_layers(model: Any, precision: str) -> None:
    """Raises `ModelInvalid` for a model, perhaps without weights, that cannot be quantised, and says why."""
    for name, module in model.named_modules():
        if why := _unfit(name, module, precision):
            raise ModelInvalid(f"base_precision '{precision}' cannot hold {type(model).__name__}: {why}")
    if not linear_layers(model):
        raise ModelInvalid(f"{type(model).__name__} has no linear layers that could be quantised.")


def _unfit(name: str, module: nn.Module, precision: str) -> str | None:
    if isinstance(module, nn.Linear):
        if type(module).forward is not nn.Linear.forward:
            return f"the layer '{name}' ({type(module).__name__}) computes more than a product."
        if precision == "nf4" and module.in_features % 2:
            return f"the layer '{name}' has {module.in_features} inputs, and NF4 packs numbers in pairs."
        return None
    if type(module).__name__ == "Conv1D":
        return f"the layer '{name}' keeps its weight transposed (Conv1D)."
    for own, parameter in module.named_parameters(recurse=False):
        if parameter.ndim == 3 and "expert" in f"{name}.{own} {type(module).__name__}".lower():
            return f"'{name}.{own}' holds the matrices of several experts; linear layers alone are quantised."
    return None


def has_quantised(model: Any) -> bool:
    """Says whether a model has quantised layers."""
    return any(isinstance(module, QuantisedLinear) for module in model.modules())


def dtype_for_measuring(model: Any, compute: torch.dtype) -> torch.dtype | None:
    """Returns `compute` if there is memory to hold all merged weights in it; None if each is made anew."""
    layers = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    needed = sum(layer.in_features * layer.out_features for layer in layers) * compute.itemsize
    free = free_bytes(model.device)
    if free is None:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return compute if needed <= free // SHARE_FOR_MEASURING else None


def write_quantisation(folder: Path, precision: str, compute: torch.dtype) -> None:
    """Writes how the base of an adapter was quantised, as `transformers` reads it."""
    if precision == "nf4":
        how = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    else:
        how = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    (folder / QUANTISATION).write_text(json.dumps(how.to_dict(), indent=2, sort_keys=True) + "\n", "utf-8")
