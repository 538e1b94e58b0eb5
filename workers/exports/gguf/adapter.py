"""A LoRA adapter as a GGUF file, with the strength that it was trained with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gguf import GGUFType, GGUFWriter, Keys
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor

from workers.exports.gguf.architectures import Architecture, head_size
from workers.exports.gguf.refused import GgufRefused
from workers.exports.gguf.tensors import HEAD, Names, as_array, heads_turned, in_pairs
from workers.training.model.adapter_files import CONFIG, WEIGHTS

KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
ODD = (
    "use_dora",
    "fan_in_fan_out",
    "target_parameters",
    "modules_to_save",
    "alora_invocation_tokens",
    "lora_bias",
)
"""What llama.cpp does not do, of what an adapter's config may ask."""


class Pair(NamedTuple):
    """Holds the two matrices of an adapted layer."""

    down: Tensor
    up: Tensor


def write_adapter(folder: Path, file: Path, config: Any, architecture: Architecture) -> None:
    """Writes the adapter in a folder for a base of this config. Raises `GgufRefused`.

    llama.cpp multiplies by alpha / rank, one alpha for all layers and the rank of each. What the adapter's
    config says otherwise (rslora, patterns of alphas) goes into the matrices.
    """
    settings = LoraConfig.from_pretrained(str(folder))
    _check(json.loads((folder / CONFIG).read_text("utf-8")), settings)
    # llama.cpp takes 0 for a strength of 1
    alpha = float(settings.lora_alpha) or 1.0
    writer = GGUFWriter(file, architecture.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    names = Names(architecture, config)
    for layer, pair in sorted(_pairs(folder / WEIGHTS).items()):
        name = f"{layer}.weight"
        if name == HEAD and config.tie_word_embeddings:
            raise GgufRefused("The adapter changes the output layer, which is the embedding in llama.cpp.")
        up = pair.up * (strength(settings, layer, len(pair.down)) * len(pair.down) / alpha)
        if (heads := heads_turned(name, config, architecture)) is not None:
            _check_rows(layer, up, heads * head_size(config))
            up = in_pairs(up, heads)
        writer.add_tensor(f"{names.of(name)}.lora_a", as_array(pair.down))
        writer.add_tensor(f"{names.of(name)}.lora_b", as_array(up))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def strength(settings: Any, layer: str, rank: int) -> float:
    """Returns by what PEFT multiplies a layer's product."""
    alphas = dict(settings.alpha_pattern or {})
    alpha = float(alphas.get(get_pattern_key(list(alphas), layer), settings.lora_alpha))
    return alpha / rank**0.5 if settings.use_rslora else alpha / rank


def _check(said: dict[str, Any], settings: Any) -> None:
    if odd := [name for name in ODD if said.get(name)]:
        raise GgufRefused(f"The adapter's config sets {', '.join(odd)}, which llama.cpp does not know.")
    if settings.bias != "none":
        raise GgufRefused("The adapter trains biases, which llama.cpp does not know.")


def _pairs(file: Path) -> dict[str, Pair]:
    found: dict[str, dict[str, Tensor]] = {}
    for key, weight in load_file(file).items():
        matched = KEY.fullmatch(key)
        if matched is None:
            raise GgufRefused(f"The adapter holds '{key}', which llama.cpp does not know.")
        found.setdefault(matched[1], {})[matched[2]] = weight.to(torch.float32)
    return {layer: Pair(pair["A"], pair["B"]) for layer, pair in found.items()}


def _check_rows(layer: str, up: Tensor, rows: int) -> None:
    if len(up) != rows:
        raise GgufRefused(f"The adapter's '{layer}' has {len(up)} rows, its base {rows}.")
