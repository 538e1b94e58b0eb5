"""A LoRA adapter on every matrix of a decoder's layers that PEFT can adapt, and what it leaves out.

Linear layers have one each. Experts that lie fused in one parameter, (experts, rows, columns), have one per
expert, by PEFT's `target_parameters`. Embeddings, output layer, convolutions and what is no part of the
decoder (the eyes and ears of a multimodal model) have none; nor have routers that are no linear layers.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn

from methods.train_config import TrainConfig
from workers.training.model.parts import decoder_name, decoder_of
from workers.training.model.quantised import QuantisedLinear

MAMBA_OUTPUT = "out_proj"
"""A layer of Mamba mixers whose weight their kernels read past any adapter; PEFT refuses to adapt it."""
WITH_MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Model types for which PEFT refuses it."""
TIME_STEP = "dt_proj"
"""A layer whose weight some families multiply by themselves: its adapter would change nothing until it is
merged (findings/peft-jamba-dt-proj-adapts-nothing).
"""
WITHOUT_TIME_STEP = {"doge", "falcon_mamba", "jamba", "mamba"}
"""Model types that do so: of all causal families in transformers 5.23 those whose adapter had no gradient."""

KINDS = {
    "router": r"(^|\.)(router|gate|switch)(\.|$)",
    "experts": r"expert|block_sparse_moe|(^|\.)moe(\.|$)",
    "mixer": r"mamba|mixer|conv|linear_attn|ssm|recurrent",
    "attention": r"attn|attention",
    "mlp": r"mlp|feed_forward|ffn|fc1|fc2|dense_",
}
"""What a matrix is for, by the first pattern that its name has; "other" without one."""


NO_MATRICES = (nn.Embedding, nn.modules.conv._ConvNd)
NOT_MULTIPLIED = ("bias", "A_log")
"""How the names of parameters end that have rows and columns and are no matrix: a decay for each state."""


class Share(NamedTuple):
    """Says how many of the matrices of a kind have an adapter."""

    adapted: int
    all: int


def add_adapter(model: Any, config: TrainConfig) -> Any:
    """Puts a fresh adapter on a model; returns PEFT's wrapper."""
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any positive number works
        lora_dropout=0.0,
        target_modules="all-linear",
        target_parameters=fused_experts(model) or None,
        exclude_modules=_excluded(model),
        task_type="CAUSAL_LM",
    )
    if lora.target_parameters:
        lora.target_parameters += _left_out(model, lora)
        lost = [re.escape(name) for name in _lost_in_files(model, lora)]
        lora.exclude_modules = "|".join([*filter(None, [_excluded(model)]), *lost]) or None
    found = _inject(model, lora)
    lora.base_model_name_or_path = config.model
    return found


def _inject(model: Any, lora: LoraConfig) -> Any:
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name it has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*fan_in_fan_out.*", UserWarning)
        # It looks for the rank of fused experts under a name that it has just replaced.
        warnings.filterwarnings("ignore", ".*(rank|alpha)_pattern keys.*", RuntimeWarning)
        return get_peft_model(model, lora)


def _left_out(model: Any, lora: LoraConfig) -> list[str]:
    """Returns the weights of linear layers that PEFT would leave out, found out with a model without weights.

    In models with fused experts it takes the names of MLPs' layers (gate_proj) for those that the experts had
    before they were fused, and leaves dense and shared MLPs out. As parameters they are adapted, and found
    again by whoever loads the adapter.
    """
    with torch.device("meta"):
        trial = type(model)(model.config)
    linear = _linear_in(trial)
    _inject(trial, copy.deepcopy(lora))
    excluded = re.compile(str(lora.exclude_modules)) if lora.exclude_modules else None
    left = [
        name
        for name in linear
        if not isinstance(trial.get_submodule(name), LoraLayer)
        and not (excluded and excluded.fullmatch(name))
    ]
    return sorted({f"{name.rpartition('.')[2]}.weight" for name in left})


def _lost_in_files(model: Any, lora: LoraConfig) -> list[str]:
    """Returns the modules whose adapters PEFT would save and not find again, by a model without weights.

    What it reads goes through the conversion of the names that a family's checkpoints once had. Laguna's, of
    "shared_expert", takes hold of the present name too (findings/peft-laguna-shared-experts-are-not-loaded).
    """
    with torch.device("meta"):
        trial = _inject(type(model)(model.config), copy.deepcopy(lora))
    saved = get_peft_model_state_dict(trial, save_embedding_layers=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded: Any = set_peft_model_state_dict(trial, saved)
    lost = [key for key in loaded.missing_keys if ".lora_" in key]
    return sorted({key.partition(".lora_")[0].removeprefix("base_model.model.") for key in lost})


def _linear_in(model: Any) -> list[str]:
    """Returns the names of the linear layers in a model's decoder."""
    within = f"{decoder_name(model)}."
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and name.startswith(within)
    ]


def fused_experts(model: Any) -> list[str]:
    """Returns the names of parameters that hold a matrix for each expert, as PEFT takes them."""
    found = set()
    for name, module in decoder_of(model).named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and "expert" in f"{name}.{own} {type(module).__name__}".lower():
                found.add(f"{name.rpartition('.')[2]}.{own}")
    return sorted(found)


def _excluded(model: Any) -> str | None:
    """Returns a pattern of the modules that have no adapter although they are linear, if there are any."""
    within = decoder_name(model)
    head = model.get_output_embeddings()
    linear = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    patterns = []
    if any(not name.startswith(f"{within}.") and module is not head for name, module in linear):
        patterns.append(rf"(?!{re.escape(within)}\.).*")
    if model.config.model_type in WITH_MAMBA:
        patterns.append(rf".*\.{MAMBA_OUTPUT}")
    if model.config.model_type in WITHOUT_TIME_STEP:
        patterns.append(rf".*\.{TIME_STEP}")
    # What PEFT adds is a product; these compute more than one (Phi MoE's router), or several (DeepSeek V4).
    patterns += [re.escape(name) for name, each in linear if not _is_product(each)]
    return "|".join(patterns) or None


@torch.no_grad()
def _is_product(layer: nn.Linear) -> bool:
    """Says whether a linear layer of a class of its own computes what a linear layer does."""
    if type(layer).forward is nn.Linear.forward or isinstance(layer, QuantisedLinear):
        return True
    ones = layer.weight.new_ones(1, 1, layer.in_features)
    try:
        found = layer(ones)
    except RuntimeError:  # it takes inputs of another shape
        return False
    expected = nn.functional.linear(ones, layer.weight, layer.bias)
    return isinstance(found, torch.Tensor) and torch.allclose(found, expected, rtol=1e-2, atol=1e-4)


def shares(model: Any, adapted: Iterable[tuple[str, str]]) -> dict[str, Share]:
    """Returns the share of the matrices of a decoder's layers that have an adapter, by kind.

    `model` is without adapters; `adapted` names module and parameter of those that have one.
    """
    has_adapter = set(adapted)
    within = decoder_name(model)
    counts: dict[str, list[bool]] = {}
    for name, module in model.named_modules():
        if not name.startswith(f"{within}.") or isinstance(module, NO_MATRICES):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if sum(n > 1 for n in parameter.shape) >= 2 and not own.endswith(NOT_MULTIPLIED):
                kind = _kind(name.removeprefix(f"{within}."))
                counts.setdefault(kind, []).append((name, own) in has_adapter)
    return {kind: Share(sum(has), len(has)) for kind, has in sorted(counts.items())}


def _kind(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def what_is_adapted(found: Mapping[str, Share]) -> tuple[Literal["info", "warn"], str] | None:
    """Returns what a person is told of the matrices with an adapter, and how loudly.

    It is None where there is nothing to tell: attention and MLP alone, and all of it adapted. Matrices
    without an adapter are warned of, but for routers.
    """
    is_whole = all(share.adapted == share.all for kind, share in found.items() if kind != "router")
    if is_whole and found.keys() <= {"attention", "mlp"}:
        return None
    parts = ", ".join(f"{kind} {share.adapted} of {share.all}" for kind, share in found.items())
    message = f"LoRA adapts, of the matrices in the model's layers: {parts}."
    if is_whole:
        return "info", message
    return "warn", f"{message} The others stay as they are; adapter 'full' trains everything."
