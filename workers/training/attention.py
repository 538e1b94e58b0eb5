"""One attention function for every model, registered with transformers under the name `cherry`.

It does what the engine asks for at the moment (`use`): a packed training forward or a decode step bring a function of
their own; without one it is the library's "sdpa".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cherry"

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], Tensor]
"""(module, query (B, heads, T, D), key and value (B, kv heads, S, D), scaling) -> (B, T, heads, D)."""

_in_use: ContextVar[Attend | None] = ContextVar("attend", default=None)


@contextmanager
def use(attend: Attend) -> Iterator[None]:
    """Every attention layer of every `cherry` model calls `attend` inside, and builds no mask."""
    token = _in_use.set(attend)
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
    attend = _in_use.get()
    if attend is not None:
        return attend(module, query, key, value, scaling), None
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )
    return found


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if _in_use.get() is not None:
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
