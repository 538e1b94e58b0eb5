"""From a decoder's states to logits, as the model itself does it: scaled, capped or plain.

Most models' logits are their output layer's; `output_head` is then that layer. Others divide or cap them
afterwards (Granite, Cohere, Gemma 2). For these it is the model's own `forward` over a decoder that hands
on the states it is given, so that no formula of a family is written down here.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from workers.training.base.errors import ModelInvalid
from workers.training.model import attention
from workers.training.model.arithmetic import in_fp32
from workers.training.model.parts import decoder_name, decoder_of

log = logging.getLogger(__name__)

OWN = "cherry_own_head"
"""The attribute of a model that keeps what was found out of it, so that its copies have it too: the name of
its decoder where the head is the model's own, None where it is plain.
"""

HEAD_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""The largest difference of logits, relative to the largest of them, at which a head counts as the model's.
Chosen: fp32 rounding is a hundredth of it, a cap at 30 moves logits of 3 by 3e-3 of themselves.
"""
HALF_TOLERANCE = 2e-2
"""The same in 16 bits, whose rounding is 4e-3, for models that cannot compute in fp32. Chosen."""


def output_head(model: Any) -> Any:
    """Returns what makes a causal model's logits of its decoder's states: (..., H) -> (..., V).

    It finds out once for each model. Raises `ModelInvalid` where the states alone do not decide them.
    """
    if not hasattr(model, OWN):
        name = decoder_name(model)
        setattr(model, OWN, None if _is_plain(model, name) else name)
    name = getattr(model, OWN)
    return model.get_output_embeddings() if name is None else OwnHead(model, name)


class OwnHead:
    """Is the end of a model's own `forward`, after its decoder."""

    def __init__(self, model: Any, decoder: str) -> None:
        self._shell = _with_stand_in(model, decoder, _HandsOn())
        self.weight: Tensor = model.get_output_embeddings().weight
        """Of the output layer: (V, H)."""

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (..., H) -> (..., V)."""
        rows = states.reshape(1, -1, states.shape[-1])
        logits: Tensor = self._shell.forward(inputs_embeds=rows, use_cache=False).logits
        return logits.view(*states.shape[:-1], -1)


class _HandedOn(BaseModelOutputWithPast):
    """Is what a decoder returns; what some return beside their states is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _HandsOn(nn.Module):
    """Takes the place of a decoder: its last states are the embeddings that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPast:
        return _HandedOn(last_hidden_state=inputs_embeds)


def _with_stand_in(model: Any, name: str, stand_in: nn.Module) -> Any:
    """Returns a model with another module of that name; the model itself stays, and shares all else."""
    *parents, last = name.split(".")
    found = parent = _shallow(model)
    for each in parents:
        parent._modules[each] = _shallow(parent._modules[each])
        parent = parent._modules[each]
    parent._modules[last] = stand_in
    return found


def _shallow(module: Any) -> Any:
    found = copy.copy(module)
    found.__dict__.pop("forward", None)  # a replaced one is bound to the module that was copied
    found._modules = dict(module._modules)
    return found


@torch.no_grad()
def _is_plain(model: Any, decoder: str) -> bool:
    """Says whether logits are the output layer's. Raises `ModelInvalid` if even `OwnHead` is wrong."""
    if model.get_output_embeddings() is None:
        raise ModelInvalid(f"{type(model).__name__} has no output layer for tokens.")
    try:
        with in_fp32(model):
            return _trial(model, decoder)
    except RuntimeError as error:  # some models' code wants the dtype of the weights, or memory is short
        log.info("output_layer_tried_in_16_bits", extra={"reason": str(error)})
        return _trial(model, decoder)


def _trial(model: Any, decoder: str) -> bool:
    """Makes logits of the states that a model's own logits are made of: rounding below them is the same."""
    ids = attention.some_tokens(model)
    kept: list[Tensor] = []
    hook = decoder_of(model).register_forward_hook(lambda *call: kept.append(call[-1].last_hidden_state))
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    if not logits.isfinite().all():
        raise ModelInvalid(f"{type(model).__name__} computes logits that are not finite.")
    (states,) = kept
    if _same(model.get_output_embeddings()(states), logits):
        return True
    if not _same(OwnHead(model, decoder)(states), logits):
        raise ModelInvalid(f"{type(model).__name__} does not make its logits of its decoder's last states.")
    return False


def _same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    most = HEAD_TOLERANCE.get(expected.dtype, HALF_TOLERANCE) * float(expected.float().abs().max())
    return float((found.float() - expected.float()).abs().max()) <= most
