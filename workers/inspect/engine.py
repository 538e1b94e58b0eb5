"""Whether the engine computes a model rightly, tried before anybody starts a job with it, and by which path.

The trial is of the model's config, not of its weights: a random model with as few layers as show every kind
that the config has, and with few tokens and experts. Its whole forward, its output layer, its packed and
its cached steps are held to each other.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoConfig

from workers.training.base.errors import ModelInvalid
from workers.training.model import attention
from workers.training.model.base_model import auto_class
from workers.training.model.head import output_head
from workers.training.passes.path import why_general
from workers.training.sampling.general_decoder import is_uncached

FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
MOST_PARAMETERS = 400_000_000
"""Of a trial: 1.6 GB in fp32, of the 4 GiB that an inspection may take."""
VOCABULARY = 1024
EXPERTS = 4
"""Of a trial, where the model has more. Chosen, not measured."""
NUMBERS_OF_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
INTERMEDIATE = 256
"""The width inside an MLP of a trial, where the model has more: nothing else depends on it."""
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def inspect(folder: str) -> dict[str, Any]:
    """Returns `fault`: why the model cannot be trained; `path` and its reason; `untried`: why, if so."""
    config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    try:
        model = _random(_shrunk(config))
    except Exception as problem:  # what a config of few layers says of itself is the library's to judge
        return _found(untried=f"no small model of this config can be made ({_said(problem)})")
    if model is None:
        return _found(untried="its layers are too large for a trial here")
    try:
        attention.adopt(model)
        output_head(model)
        reason = why_general(model)
        if reason is not None and is_uncached(model):
            reason += " Sampling reads the whole sequence for every token, which is slow."
        return _found(reason=reason)
    except ModelInvalid as problem:
        return _found(fault=str(problem))
    except Exception as problem:  # the model's own code may fail in any way
        return _found(fault=f"{type(model).__name__} cannot compute: {_said(problem)}")


def _found(fault: str | None = None, reason: str | None = None, untried: str | None = None) -> dict[str, Any]:
    return {"fault": fault, "path": "general" if reason else "fast", "reason": reason, "untried": untried}


def _shrunk(config: Any) -> Any:
    """Returns the config with the first layers that show each kind, and with few tokens and experts."""
    found = copy.deepcopy(config)
    text = found.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    layers = int(text.num_hidden_layers)
    kept = min(layers, max(2, *(kinds.index(kind) + 1 for kind in set(kinds))) if kinds else 2)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(text, name, value[:kept])
    text.num_hidden_layers = kept
    text.vocab_size = min(text.vocab_size, VOCABULARY)
    for name in WIDTHS:
        if isinstance(width := getattr(text, name, None), int):
            setattr(text, name, min(width, INTERMEDIATE))
    for name in TOKENS:
        setattr(text, name, 0)
    for name in NUMBERS_OF_EXPERTS:
        if isinstance(number := getattr(text, name, None), int):
            setattr(text, name, min(number, max(EXPERTS, getattr(text, "num_experts_per_tok", 1) or 1)))
    return found


def _random(config: Any) -> Any:
    """Returns a random model of a config, None if that is too large."""
    auto = auto_class(config)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in auto.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        return None
    torch.manual_seed(0)
    return auto.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def _said(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0][:300] if lines else 'it says nothing'}"
