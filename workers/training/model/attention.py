"""One attention function for every model, registered with transformers under the name `cherry`.

It does what the engine asks for at the moment (`use`): a packed training forward or a decode step bring a
function of their own; without one it is the library's "sdpa".
"""

from __future__ import annotations

import logging
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
from workers.training.model.arithmetic import in_fp32
from workers.training.model.parts import decoder_of

log = logging.getLogger(__name__)

NAME = "cherry"

P = ParamSpec("P")
R = TypeVar("R")

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], Tensor]
"""(module, query (B, heads, T, D), key and value (B, kv heads, S, D), scaling) -> (B, T, heads, D)."""

CAPPED = "Attention with capped scores is not supported by 'sdpa'."
"""The library's "sdpa" of transformers 5.17 leaves the cap out and says nothing."""

CHANGE_SCORES = ("s_aux", "softcap", "position_bias")
"""What some models hand to their attention beside queries, keys and values; it is not None if it matters."""

ADOPTION_TOLERANCE = 1e-5
"""The relative difference of states in fp32 from which a model keeps its own attention. Measured on seven
families of tiny random models: at most 4e-7 (docs/benchmarks.md), while scores that are off by 1 % make
2e-5 with weights of 0.02 and 7e-3 with weights of 0.2.
"""
NUDGES = 16
"""What counts as rounding too, in movements by half a unit in the last place of all embeddings: deep models
round more. Measured in fp32 on random models of 2, 24 and 80 layers: right attentions are 0.6 to 1.3 apart,
scores that are off by 1 % make 140 to 15,000 (docs/benchmarks.md).
"""
HALF_TOLERANCE = 2e-2
"""The same in 16 bits, for models that cannot compute in fp32. Measured on those families: 1.1e-2."""

_reasons: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""Why models keep their own attention, by their decoders."""


class Unsupported(ModelInvalid):
    """Says that the model's attention is more than the function in use computes."""


@torch.no_grad()
def adopt(model: Any) -> str | None:
    """Lets a model that was loaded with "eager" attention call `cherry`, if that computes the same states.

    They are compared in fp32, whatever the model computes in (arithmetic.py), if its code lets it. A model
    that keeps its own attention gets the library's "sdpa" where that computes the same.

    Returns:
        Why the model keeps its own attention; None if it does not.
    """
    ids = some_tokens(model)
    if not _states(model, ids).isfinite().all():
        raise ModelInvalid(f"{type(model).__name__} computes states that are not finite.")
    try:
        with in_fp32(model) as is_exact:
            reason = _choose(model, ids, is_exact)
    except RuntimeError as error:  # some models' code wants the dtype of the weights, or memory is short
        log.info("attention_compared_in_16_bits", extra={"reason": str(error)})
        model.set_attn_implementation("eager")
        reason = _choose(model, ids, is_exact=False)
    if reason is not None:
        _reasons[decoder_of(model)] = reason
    return reason


def _choose(model: Any, ids: Tensor, is_exact: bool) -> str | None:
    """Gives a model the first of `cherry`, "sdpa" and "eager" that computes what the last one does."""
    name = type(model).__name__
    expected, found = _states(model, ids), None
    if not type(model)._supports_attention_backend:
        reason = f"{name} does not let its attention be replaced."
    elif (found := _apart(model, NAME, ids, expected, is_exact)) is None:
        return None
    else:
        reason = f"{name} computes other states with another attention function: {found.rstrip('.')}."
    has_sdpa = type(model)._supports_sdpa and found != CAPPED
    if not has_sdpa or _apart(model, "sdpa", ids, expected, is_exact) is not None:
        model.set_attn_implementation("eager")
    return reason


def why_own(model: Any) -> str | None:
    """Returns why `adopt` has let a model keep its own attention; None if it has not."""
    return _reasons.get(decoder_of(model))


def _apart(model: Any, implementation: str, ids: Tensor, expected: Tensor, is_exact: bool) -> str | None:
    """Lets a model call another attention function; returns how its states differ with it, if they do."""
    try:
        model.set_attn_implementation(implementation)
        found = _states(model, ids)
    except (Unsupported, ValueError) as error:  # "sdpa" may refuse with a ValueError
        return str(error)
    difference, size = float((found - expected).norm()), float(expected.norm())
    if difference <= (ADOPTION_TOLERANCE if is_exact else HALF_TOLERANCE) * size:  # states may all be 0
        return None
    with nudged(model):
        rounding = float((_states(model, ids) - found).norm())
    if difference <= (NUDGES if is_exact else 1) * rounding:
        return None
    return f"a difference of {difference:.1e} in {size:.1e}"


def _states(model: Any, ids: Tensor) -> Tensor:
    """Returns (1, n, H) last states of (1, n) ids, to be compared."""
    states: Tensor = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    return states.float() if states.dtype.itemsize == 2 else states


@contextmanager
def nudged(model: Any) -> Iterator[None]:
    """Moves all embeddings of a model by half a unit in the last place inside: what that does is rounding."""

    def nudge(_module: nn.Module, _inputs: Any, embeddings: Tensor) -> Tensor:
        signs = torch.ones_like(embeddings)
        signs.view(-1)[::2] = -1
        return embeddings * (1 + signs * torch.finfo(embeddings.dtype).eps / 2)

    hook = model.get_input_embeddings().register_forward_hook(nudge)
    try:
        yield
    finally:
        hook.remove()


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
        if kwargs.get("s_aux") is not None:  # biases are known to "sdpa"
            raise Unsupported("Attention with sinks is not supported by 'sdpa'.")
        if kwargs.get("softcap") is not None:
            raise Unsupported(CAPPED)
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
