"""Gradient checkpointing: a decoder layer's activations are computed again in the backward pass, not kept.

Transformers' own switch works in train mode only, and the trained model is always in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from workers.training.base.errors import ModelInvalid
from workers.training.model import attention


def recompute_layers(model: Any) -> None:
    """Keeps only the input of each decoder layer from now on, which changes no result.

    Raises `ModelInvalid` for a model whose layers cannot be told. Source: Chen et al. 2016, arXiv:1604.06174.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelInvalid(f"{type(model).__name__} does not support gradient checkpointing.")
    for layer in layers:
        layer.forward = partial(_forward, layer.forward)


def is_recomputed(layer: Any) -> bool:
    """Says whether `recompute_layers` has had this layer, which is otherwise as it was made."""
    replaced = vars(layer).get("forward")
    return isinstance(replaced, partial) and replaced.func is _forward


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # What is in use now will be no more in the backward pass.
    return recomputed(attention.keep(forward), *args, **kwargs)


def recomputed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Returns what a function gives; for the backward pass it is called again.

    Nothing random runs in eval mode.
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
