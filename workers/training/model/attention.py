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
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workers.training.base.errors import ModelInvalid
from workers.training.model.parts import decoder_of

NAME = "cherry"

P = ParamSpec("P")
R = TypeVar("R")

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], Tensor]
"""(module, query (B, heads, T, D), key and value (B, kv heads, S, D), scaling) -> (B, T, heads, D)."""

CHANGE_SCORES = ("s_aux", "softcap", "position_bias")
"""What some models hand to their attention beside queries, keys and values; it is not None if it matters."""

ADOPTION_TOLERANCE = 2e-2
"""The relative difference of states from which a model keeps its own attention. Measured on seven families
of tiny random models: at most 4e-7 in fp32 and 1.1e-2 in bf16, which is rounding (docs/benchmarks.md). A deep
model rounds more: SmolLM2-135M in bf16 differs by 1.6e-2 to 5.5e-2, while a nudge of its embeddings by half a
unit in the last place moves its states by 1.8e-2 to 6.2e-1. So what such a nudge does is rounding too.
"""

_reasons: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""Why models keep their own attention, by their decoders."""


class Unsupported(ModelInvalid):
    """Says that the model's attention is more than the function in use computes."""


@torch.no_grad()
def adopt(model: Any) -> str | None:
    """Lets a model that was loaded with "eager" attention call `cherry`, if that computes the same states.

    A model that keeps its own attention gets the library's "sdpa" where that computes the same.

    Returns:
        Why the model keeps its own attention; None if it does not.
    """
    name = type(model).__name__
    ids = some_tokens(model)
    expected = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state.float()
    if not expected.isfinite().all():
        raise ModelInvalid(f"{name} computes states that are not finite.")
    if not type(model)._supports_attention_backend:
        reason = f"{name} does not let its attention be replaced."
    elif (found := _apart(model, NAME, ids, expected)) is None:
        return None
    else:
        reason = f"{name} computes other states with another attention function: {found.rstrip('.')}."
    if not type(model)._supports_sdpa or _apart(model, "sdpa", ids, expected) is not None:
        model.set_attn_implementation("eager")
    _reasons[decoder_of(model)] = reason
    return reason


def why_own(model: Any) -> str | None:
    """Returns why `adopt` has let a model keep its own attention; None if it has not."""
    return _reasons.get(decoder_of(model))


def _apart(model: Any, implementation: str, ids: Tensor, expected: Tensor) -> str | None:
    """Lets a model call another attention function; returns how its states differ with it, if they do."""
    try:
        model.set_attn_implementation(implementation)
        found = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state.float()
    except (Unsupported, ValueError) as error:  # "sdpa" refuses capped scores with a ValueError
        return str(error)
    difference, size = float((found - expected).norm()), float(expected.norm())
    if difference <= ADOPTION_TOLERANCE * size:  # states may all be 0, where one token is all there is
        return None
    if difference <= _rounding(model, ids, found):
        return None
    return f"a difference of {difference:.1e} in {size:.1e}"


def _rounding(model: Any, ids: Tensor, states: Tensor) -> float:
    """Returns how far states move when all embeddings are off by half a unit in the last place."""

    def nudged(_module: nn.Module, _inputs: Any, embeddings: Tensor) -> Tensor:
        signs = torch.ones_like(embeddings)
        signs.view(-1)[::2] = -1
        return embeddings * (1 + signs * torch.finfo(embeddings.dtype).eps / 2)

    hook = model.get_input_embeddings().register_forward_hook(nudged)
    try:
        moved = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state.float()
    finally:
        hook.remove()
    return float((moved - states).norm())


def some_tokens(model: Any) -> Tensor:
    """Returns (1, 8) ids to try a model with, over and over where its vocabulary is smaller."""
    embedding: Tensor = model.get_input_embeddings().weight
    return torch.arange(8, device=embedding.device)[None] % embedding.shape[0]


class _Use(NamedTuple):
    attend: Attend
    reach: int
    windows: list[int] | None = None
    """Takes the windows of all layers that are run."""


_in_use: ContextVar[_Use | None] = ContextVar("attend", default=None)


@contextmanager
def use(attend: Attend, reach: int = 0) -> Iterator[None]:
    """Makes every attention layer of every `cherry` model call `attend` inside, without a mask.

    A layer that `attend` would get wrong raises `Unsupported`: one with sinks, with capped or biased scores,
    or with a window shorter than `reach`, the most tokens that any token looks at.
    """
    with _using(_Use(attend, reach)):
        yield


@torch.no_grad()
def windows(model: Any) -> list[int]:
    """Returns the windows of a `cherry` model's layers, in tokens: of those that have one."""
    found: list[int] = []
    device = model.get_input_embeddings().weight.device
    with _using(_Use(_over_one_token, 0, found)):
        decoder_of(model)(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    return found


def _over_one_token(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: float | None) -> Tensor:
    return value.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(1, 2)


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
    if used.windows is not None and window is not None:
        used.windows.append(window)
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
