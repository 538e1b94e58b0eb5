"""The dtypes of a base's weights on disk: what is delivered has them too.

A loaded model does not know them: its config says the dtype that it was asked to load in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from methods.model_files.configs import CONFIG
from methods.model_files.weights import stored_tensors, weight_files

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""The types of safetensors that weights are trained and delivered in."""
DTYPE_KEYS = ("dtype", "torch_dtype")
"""What a config calls the dtype; the second is the name before transformers 5."""
INNER_CONFIG = "text_config"
"""Where a model of several parts keeps the config of its decoder."""


class StoredTypes(NamedTuple):
    """Holds the dtypes of a folder's weights.

    Attributes:
        of_model: what its config says, if any weight has it; else that of most bytes.
        of_weights: by the names in the files. Weights of other types, such as integers, are not among them.
    """

    of_model: torch.dtype
    of_weights: Mapping[str, torch.dtype]

    @property
    def is_mixed(self) -> bool:
        """Says whether some weights have another dtype than the model."""
        return set(self.of_weights.values()) > {self.of_model}

    def of(self, name: str) -> torch.dtype:
        """Returns the dtype of a weight; what the base does not hold has that of the model."""
        return self.of_weights.get(name, self.of_model)


def stored_types(folder: Path) -> StoredTypes:
    """Reads the dtypes of a model folder out of the headers of its files."""
    n_bytes: Counter[torch.dtype] = Counter()
    found: dict[str, torch.dtype] = {}
    for file in weight_files(folder):
        for name, tensor in stored_tensors(file).items():
            if (dtype := TYPES.get(tensor.dtype)) is not None:
                found[name] = dtype
                n_bytes[dtype] += tensor.n_bytes
    said = _said(json.loads((folder / CONFIG).read_text("utf-8")))
    if said in n_bytes or not n_bytes:
        return StoredTypes(said or torch.float32, found)
    return StoredTypes(max(n_bytes, key=n_bytes.__getitem__), found)


def with_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Returns the content of a config.json that says a dtype, changed only where it said another."""
    name = str(dtype).removeprefix("torch.")
    changed = {**config, **dict.fromkeys(_keys(config) or DTYPE_KEYS[:1], name)}
    inner = config.get(INNER_CONFIG)
    if isinstance(inner, Mapping) and _keys(inner):
        changed[INNER_CONFIG] = with_dtype(inner, dtype)
    return changed


def _said(config: Mapping[str, Any]) -> torch.dtype | None:
    inner = config.get(INNER_CONFIG)
    for part in (config, inner if isinstance(inner, Mapping) else {}):
        for said in _values(part):
            if said in TYPES.values():
                return said
    return None


def _values(config: Mapping[str, Any]) -> Iterator[torch.dtype]:
    for key in _keys(config):
        yield getattr(torch, str(config[key]).removeprefix("torch."), None)  # type: ignore[misc]


def _keys(config: Mapping[str, Any]) -> list[str]:
    return [key for key in DTYPE_KEYS if config.get(key) is not None]
