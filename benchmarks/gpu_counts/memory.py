"""What free memory decides, by the engine's own arithmetic on cards that are not there."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.activations import SHAPES, Shape, count, size_of_shape
from methods.sizes.activations import Kind
from methods.sizes.sampler import CACHE_SHARE, LOGIT_BYTES, Costs, Needs, plan
from scripts.gpu.as_if_cuda import CUDA, GIB, as_if_cuda
from workers.training.passes.token_logprobs import bytes_at_a_time, token_logprobs

PASS_TOKENS, VOCABULARY = 16_384, 151_936
LORA = Kind("packed", "lora", 2)
SMALL, LARGE = SHAPES["Qwen2.5-0.5B"], SHAPES["Qwen2.5-7B"]
FREE = (8 * GIB, 24 * GIB, 80 * GIB)
"""Bytes that a card has free when logits are made."""
CARDS = (48, 80, 141)
"""GB of the cards that hold a 7B model and the copy that samples."""
NEEDS = Needs(rows=1024, groups=128, samples=8, prompt_columns=512, columns=512)
COPIES = 2
"""Of the weights: the trainer's and the sampler's."""


class Room(NamedTuple):
    """Says how many rows are sampled side by side, and the bytes of their keys, values and logits."""

    rows: int
    size: int


class Pieces(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the pieces in which log-probabilities are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made += func._schema.name == "cherry::softmax_step"
        return func(*args, **(kwargs or {}))


def logit_pieces(free: int) -> int:
    """Counts the pieces of a pass's logits where a card has so many bytes free; no number is computed."""
    with as_if_cuda(free=free):
        size = bytes_at_a_time(CUDA)
    half: dict[str, Any] = {"device": "meta", "dtype": torch.bfloat16}
    states = torch.empty(PASS_TOKENS, 8, **half).requires_grad_()
    head = nn.Linear(8, VOCABULARY, bias=False, **half).requires_grad_(requires_grad=False)
    targets = torch.empty(PASS_TOKENS, dtype=torch.long, device="meta")
    with Pieces() as pieces:
        token_logprobs(states, head, targets, 1.0, logit_bytes=size)
    return int(pieces.made)


def activations(shape: Shape) -> int:
    """Returns the bytes that a pass of LoRA in bf16 keeps for its backward pass, by counts."""
    found = count(shape, LORA)
    return int((found.kept - found.copies) / found.tokens * PASS_TOKENS)


def activation_peak(shape: Shape) -> int:
    """Returns the most bytes that such a pass takes beside weights and gradients, its logits among them."""
    found = count(shape, LORA)
    return int((found.peak - found.copies) / found.tokens * PASS_TOKENS)


def room(shape: Shape, card: int) -> Room:
    """Returns what a sampler of a model in bf16 takes of a card of so many bytes beside its trainer."""
    size = size_of_shape(shape)
    free = card - COPIES * 2 * size.parameters
    costs = Costs(token=2 * size.cached, row=size.vocabulary * LOGIT_BYTES)
    made = plan(NEEDS, costs, int(CACHE_SHARE * free))
    return Room(made.slots, costs.of(made))
