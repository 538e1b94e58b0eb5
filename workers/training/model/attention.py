"""One attention function for every model, registered with transformers under the name `cherry`.

It does what the engine asks for at the moment (`use`): a packed training forward or a decode step bring a
function of their own; without one it is the library's "sdpa".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workers.training.base.errors import ModelInvalid

NAME = "cherry"

P = ParamSpec("P")
R = TypeVar("R")

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], Tensor]
"""(module, query (B, heads, T, D), key and value (B, kv heads, S, D), scaling) -> (B, T, heads, D)."""

CHANGE_SCORES = ("s_aux", "softcap", "position_bias")
"""What some models hand to their attention beside queries, keys and values; it is not None if it matters."""

ADOPTION_TOLERANCE = 2e-2
"""The relative difference of states from which a model keeps its own attention. Measured on seven families
of tiny random models: at most 4e-7 in fp32 and 1.1e-2 in bf16, which is rounding (docs/benchmarks.md).
"""


class Unsupported(ModelInvalid):
    """Says that the model's attention is more than the function in use computes."""


@torch.no_grad()
def adopt(model: Any) -> str | None:
    """Lets a model that was loaded with "eager" attention call `cherry`, if that computes the same states.

    Returns:
        Why the model keeps its own attention; None if it does not.
    """
    name = type(model).__name__
    if not type(model)._supports_attention_backend:
        return f"{name} does not let its attention be replaced."
    ids = some_tokens(model)
    expected = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
    if not expected.isfinite().all():
        return f"{name} computes states that are not finite."
    model.set_attn_implementation(NAME)
    try:
        found = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
    except (Unsupported, ValueError) as error:  # "sdpa" refuses capped scores with a ValueError
        reason = str(error)
    else:
        difference, size = float((found - expected).norm()), float(expected.norm())
        if difference <= ADOPTION_TOLERANCE * size:  # states may all be 0, where one token is all there is
            return None
        reason = f"a difference of {difference:.1e} in {size:.1e}"
    model.set_attn_implementation("eager")
    return f"{name} computes other states with another attention function: {reason}"


def some_tokens(model: Any) -> Tensor:
    """Returns (1, 8) ids to try a model with, over and over where its vocabulary is smaller."""
    embedding: Tensor = model.get_input_embeddings().weight
    return torch.arange(8, device=embedding.device)[None] % embedding.shape[0]


class _Use(NamedTuple):
    attend: Attend
    reach: int


_in_use: ContextVar[_Use | None] = ContextVar("attend", default=None)


@contextmanager
def use(attend: Attend, reach: int = 0) -> Iterator[None]:
    """Makes every attention layer of every `cherry` model call `attend` inside, without a mask.

    A layer that `attend` would get wrong raises `Unsupported`: one with sinks, with capped or biased scores,
    or with a window shorter than `reach`, the most tokens that any token looks at.
    """
    with _using(_Use(attend, reach)):
        yield


def keep(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function, to be called later under the attention that is in use now."""
    used = _in_use.get()

    @wraps(function)
    def later(*args: P.args, **kwargs: P.kwargs) -> R:
        with _using(used):
            return function(*args, **kwargs)

    return later


@contextmanager
def _using(used: _Use | None) -> Iterator[None]:
    token = _in_use.set(used)
    try:
        yield
    finally:
        _in_use.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    used = _in_use.get()
    if used is None:
        if kwargs.get("s_aux") is not None:  # the others are known to "sdpa"
            raise Unsupported("Attention with sinks is not supported by 'sdpa'.")
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return found
    for name in CHANGE_SCORES:
        if kwargs.get(name) is not None:
            raise Unsupported(f"Attention with '{name}' is not supported.")
    window = kwargs.get("sliding_window")
    if window is not None and window < used.reach:
        raise Unsupported(f"A window of {window} tokens is shorter than a sequence of {used.reach}.")
    return used.attend(module, query, key, value, scaling), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if _in_use.get() is not None:
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
