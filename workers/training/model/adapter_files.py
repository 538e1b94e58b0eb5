"""Reads the folder of a LoRA adapter, as far as it can be applied beside its base, row by row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from workers.training.model.adapter_rows import Adapter, LowRank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PLAIN = re.compile(r"(.+\.)?layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj")
"""Layers of which it is known that each row of a batch reaches them as a row."""
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
ODD = ("fan_in_fan_out", "use_dora", "rank_pattern", "alpha_pattern", "target_parameters", "modules_to_save")
"""What an adapter's config says where it does more than add scale * B A x to some layers' outputs."""


class NotSeparable(Exception):
    """Says that an adapter is more than products beside plain layers: its merged model has to do."""


def read_adapter(folder: Path, model: Any) -> Adapter:
    """Returns the adapter in a folder for the model that it was trained on.

    Raises `NotSeparable`, or `OSError`, `ValueError`, `KeyError` for files that are no adapter.
    """
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    if odd := [name for name in ODD if config.get(name)]:
        raise NotSeparable(f"Its config sets {', '.join(odd)}.")
    if config.get("bias", "none") != "none":
        raise NotSeparable("It trains biases.")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        matched = _KEY.fullmatch(key)
        if matched is None:
            raise NotSeparable(f"It holds {key}.")
        found.setdefault(matched[1], {})[matched[2]] = tensor.float()
    return {name: _low_rank(model, name, pair, scale) for name, pair in found.items()}


def _low_rank(model: Any, name: str, pair: dict[str, Tensor], scale: float) -> LowRank:
    if PLAIN.fullmatch(name) is None:
        raise NotSeparable(f"It adapts the layer {name}.")
    layer = model.get_submodule(name)
    down, up = pair["A"], pair["B"]
    if type(layer) is not nn.Linear or (len(up), down.shape[1]) != tuple(layer.weight.shape):
        raise NotSeparable(f"The layer {name} of the base is another one.")
    device: torch.device = layer.weight.device
    return LowRank(down.contiguous().to(device), (up * scale).contiguous().to(device))
