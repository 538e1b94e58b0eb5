"""In which dtype a model computes: below its weights' by autocast, or for a check in fp32.

Rounding in 16 bits grows with depth until it is as large as what a check looks for: two right attentions of a
model of 80 layers are further apart than a right and a wrong one of 2. In fp32 they are not, and a block of
layers at a time needs no second copy of a large model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from workers.training.model.parts import decoder_of
from workers.training.model.quantised import QuantisedLinear

_in_fp32: ContextVar[bool] = ContextVar("in_fp32", default=False)

Kept = list[tuple[dict[str, Any], str, Tensor]]
"""What was replaced, by the table of a module that holds it and the name there."""


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Lets decoder and output layer of a model compute in `dtype` (autocast), whoever calls them.

    States are in `dtype` from the embedding to the end, as they are where a copy in `dtype` samples.
    """

    def cast_embeddings(_module: Any, _given: Any, states: Tensor) -> Tensor:
        return states if _in_fp32.get() else states.to(dtype)

    def cast(_module: Any, _given: Any, found: Any) -> Any:
        if not _in_fp32.get():
            found.last_hidden_state = found.last_hidden_state.to(dtype)
        return found

    model.get_input_embeddings().register_forward_hook(cast_embeddings)
    decoder_of(model).register_forward_hook(cast)
    for module in (decoder_of(model), model.get_output_embeddings()):
        module.forward = _Autocast(module.forward, model.device.type, dtype)


class _Autocast:
    """Takes the place of a module's `forward`."""

    def __init__(self, forward: Callable[..., Any], device_type: str, dtype: torch.dtype) -> None:
        self._exact = forward
        # A cache would hold a copy of every weight until the pass ends, and each is used once in it.
        self._rounded = torch.autocast(device_type, dtype=dtype, cache_enabled=False)(forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._exact if _in_fp32.get() else self._rounded)(*args, **kwargs)


@contextmanager
def in_fp32(model: Any) -> Iterator[bool]:
    """Lets the decoder and output layer of a model compute in fp32 inside; gives whether they do.

    A block of the decoder holds its weights in fp32 while it runs. Other models that share the weights see
    nothing of it. A quantised layer multiplies in the dtype of what it reads. Weights that are sharded, or
    quantised by others, stay, and so does the arithmetic.
    """
    codes = {id(each.weight) for each in model.modules() if isinstance(each, QuantisedLinear)}
    held = (tensor for tensor in chain(model.parameters(), model.buffers()) if id(tensor) not in codes)
    if not all(map(_is_plain, held)):
        yield False
        return
    mark = _in_fp32.set(True)
    with ExitStack() as stack:
        stack.callback(_in_fp32.reset, mark)
        stack.enter_context(torch.autocast(model.device.type, enabled=False))
        if any(map(_is_half, chain(model.parameters(), model.buffers()))):
            for block, is_whole in _blocks(decoder_of(model)):
                _widen_at_call(block, is_whole, stack)
            if (head := model.get_output_embeddings()) is not None:
                _widen_at_call(head, True, stack)
        yield True


def _is_plain(tensor: Tensor) -> bool:
    """Says whether a weight is a whole tensor of numbers: no shard, no 8- or 4-bit codes."""
    is_number = not tensor.is_floating_point() or tensor.dtype.itemsize > 1
    is_code = isinstance(tensor, nn.Parameter) and not tensor.is_floating_point()
    return is_number and not is_code and not isinstance(tensor, DTensor)


def _is_half(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize == 2


def _blocks(module: Any) -> Iterator[tuple[Any, bool]]:
    """Yields the parts of a decoder that run one after the other, each with whether it is a whole module.

    They are the members of its lists of layers, and what has no such list; what has one is there for the
    weights of its own alone.
    """
    if isinstance(module, nn.ModuleList):
        for layer in module:
            yield layer, True
    elif any(isinstance(each, nn.ModuleList) for each in module.modules()):
        yield module, False
        for child in module.children():
            yield from _blocks(child)
    else:
        yield module, True


def _widen_at_call(module: Any, is_whole: bool, stack: ExitStack) -> None:
    """Lets a module have fp32 weights while it runs, or an embedding give fp32 states, until `stack` ends."""
    if isinstance(module, nn.Embedding):  # looked up, a row is the same number in either
        hook = module.register_forward_hook(lambda _module, _given, states: states.float())
        stack.callback(hook.remove)
        return
    kept: list[Kept] = []

    def widen(_module: Any, _given: Any) -> None:
        kept.append(_widen(module.modules() if is_whole else [module]))

    def narrow(_module: Any, _given: Any, _found: Any) -> None:
        for table, name, tensor in kept.pop():
            table[name] = tensor

    stack.callback(module.register_forward_pre_hook(widen).remove)
    stack.callback(module.register_forward_hook(narrow, always_call=True).remove)


def _widen(modules: Any) -> Kept:
    """Replaces 16-bit weights in the tables of modules, which no other model shares."""
    kept: Kept = []
    for module in modules:
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and _is_half(tensor):
                    kept.append((table, name, tensor))
                    wide = tensor.detach().float()
                    is_weight = isinstance(tensor, nn.Parameter)
                    table[name] = nn.Parameter(wide, requires_grad=False) if is_weight else wide
    return kept
