"""The weights of a model folder as the tensors of a GGUF file, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TensorNameMap, get_tensor_name_map
from safetensors import safe_open
from torch import Tensor

from methods.model_files.weights import stored_tensors, weight_files
from workers.exports.gguf.architectures import Architecture, rope_factors
from workers.exports.gguf.refused import GgufRefused
from workers.training.model.stored_types import TYPES

SUFFIXES = (".weight", ".bias")
ROPE_FACTORS = "rope_freqs.weight"
HEAD = "lm_head.weight"
QUERY, KEY = "self_attn.q_proj", "self_attn.k_proj"
KINDS = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}
FILE_KINDS = {
    torch.float32: LlamaFileType.ALL_F32,
    torch.float16: LlamaFileType.MOSTLY_F16,
    torch.bfloat16: LlamaFileType.MOSTLY_BF16,
}
SHORT = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""What file names call the dtypes."""

WIDENED = 2**29
"""Numbers of a model up to which 16-bit weights are written as fp32, which holds them exactly: 2 GiB.
llama.cpp rounds what it multiplies with a 16-bit weight to 16 bits as well: of 12 greedy answers of
SmolLM2-135M 4 were others from a file in bf16, none from one in fp32."""

Part = tuple[str, Callable[[], Tensor], torch.Size, torch.dtype]
"""A tensor of the file: its name, what reads it, its shape and its dtype."""


class Names:
    """Knows what llama.cpp calls the weights of a model.

    Raises `GgufRefused` for a weight that it has no name for.
    """

    def __init__(self, architecture: Architecture, config: Any) -> None:
        self._map: TensorNameMap = get_tensor_name_map(architecture.kind, config.num_hidden_layers)

    def of(self, name: str) -> str:
        """Returns the name in the file."""
        found = self._map.get_name(name, try_suffixes=SUFFIXES)
        if found is None:
            raise GgufRefused(f"llama.cpp's code of this architecture has no weight such as '{name}'.")
        return found


def parts_of(folder: Path, config: Any, architecture: Architecture) -> list[Part]:
    """Returns the tensors of a model folder, in the order of their names; none is read yet."""
    names = Names(architecture, config)
    found: list[Part] = []
    for file in weight_files(folder):
        for name, stored in stored_tensors(file).items():
            if name == HEAD and config.tie_word_embeddings:
                continue
            shape = torch.Size(stored.shape)
            read = _reader(file, name, config, architecture)
            found.append((names.of(name), read, shape, _written_dtype(name, shape, stored.dtype)))
    if (factors := rope_factors(config)) is not None:
        found.append((ROPE_FACTORS, lambda: factors, factors.shape, torch.float32))
    return _widened(sorted(found, key=lambda part: part[0]))


def _widened(parts: list[Part]) -> list[Part]:
    """Returns the parts of a small model in fp32, those of a larger one as they are stored."""
    if sum(shape.numel() for _, _, shape, _ in parts) > WIDENED:
        return parts
    return [(name, read, shape, torch.float32) for name, read, shape, _ in parts]


def most_of(parts: Sequence[Part]) -> torch.dtype:
    """Returns the dtype of most numbers."""
    sizes: dict[torch.dtype, int] = {}
    for _, _, shape, dtype in parts:
        sizes[dtype] = sizes.get(dtype, 0) + shape.numel()
    return max(sizes, key=sizes.__getitem__)


def add_infos(writer: GGUFWriter, parts: Sequence[Part]) -> None:
    """Announces tensors; their numbers follow once the head of the file is written."""
    for name, _, shape, dtype in parts:
        n_bytes = shape.numel() * dtype.itemsize
        writer.add_tensor_info(name, shape, _numpy(dtype), n_bytes, raw_dtype=KINDS[dtype])


def write_numbers(writer: GGUFWriter, parts: Sequence[Part]) -> Iterator[float]:
    """Writes the numbers of announced tensors; yields the share that is written after each."""
    total, done = sum(shape.numel() for _, _, shape, _ in parts), 0
    for _, read, shape, dtype in parts:
        writer.write_tensor_data(as_array(read().to(dtype)))
        done += shape.numel()
        yield done / total


def as_array(weight: Tensor) -> np.ndarray[Any, Any]:
    """Returns a weight's numbers as numpy knows them: of bf16 their bits."""
    weight = weight.contiguous()
    return (weight.view(torch.uint16) if weight.dtype == torch.bfloat16 else weight).numpy()


def in_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorders each head's rows: halves that are rotated with each other become neighbours."""
    return weight.view(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def heads_turned(name: str, config: Any, architecture: Architecture) -> int | None:
    """Returns how many heads a projection's rows are reordered in, None where they are not."""
    if not architecture.turns_pairs:
        return None
    heads = {QUERY: config.num_attention_heads, KEY: config.num_key_value_heads}
    return next((n for projection, n in heads.items() if f"{projection}." in name), None)


def _reader(file: Path, name: str, config: Any, architecture: Architecture) -> Callable[[], Tensor]:
    def read() -> Tensor:
        with safe_open(file, framework="pt") as weights:
            weight: Tensor = weights.get_tensor(name)
        if (heads := heads_turned(name, config, architecture)) is not None:
            return in_pairs(weight, heads)
        if architecture.norms_add_one and name.endswith("norm.weight"):
            return weight.float() + 1
        return weight

    return read


def _written_dtype(name: str, shape: torch.Size, stored: str) -> torch.dtype:
    """Returns the dtype in the file: norms and biases are read as fp32 alone, which holds them exactly."""
    dtype = TYPES.get(stored)
    if dtype not in KINDS:
        raise GgufRefused(f"The weight '{name}' is stored as {stored}, which is not written as GGUF.")
    return torch.float32 if len(shape) == 1 else dtype


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype({torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.uint16}[dtype])
