"""How large the model in a folder is: by its config, and by the headers of its weights. Nothing is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from methods.model_files.weights import BITS, StoredTensor, stored_tensors, weight_files
from methods.sizes.model_size import ModelSize
from workers.training.model.shape import read_shape

LAYER = re.compile(r"\.\d+\.")
"""What the name of a weight has that is in one of several layers."""
SENSES = re.compile(r"vision|visual|audio|image|speech")
"""What the names of weights have that read pictures and sounds: these are not trained."""
NORM_OF_QUERIES = re.compile(r"\bq(uery)?_?(layer)?norm\b|\.q_norm\.")
"""What the name of a weight has that norms the query heads of a layer."""
HEADS = ("num_key_value_heads", "num_attention_heads", "n_head")
INNER = ("intermediate_size", "ffn_dim", "n_inner", "d_ff")
INNER_TIMES = 4
"""The width inside an MLP in widths of the model, where a config does not say it.

Chosen, not measured: that of GPT-2.
"""


def size_of(folder: Path) -> ModelSize | None:
    """Returns the size of a model, None without its weights. Raises whatever transformers does."""
    tensors = dict(_tensors(folder))
    if not tensors:
        return None
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    text = AutoConfig.from_pretrained(folder, **offline).get_text_config(decoder=True)
    shape = read_shape(folder)
    matrices = [tensor.shape for name, tensor in tensors.items() if _is_matrix(name, tensor)]
    return ModelSize(
        parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
        matrices=sum(map(math.prod, matrices)),
        adapted=sum(_rows_and_columns(each) for each in matrices),
        layers=int(text.num_hidden_layers),
        hidden=shape.hidden_size,
        intermediate=_said(text, INNER) or INNER_TIMES * shape.hidden_size,
        cached=_cached(text, shape.hidden_size),
        vocabulary=int(text.vocab_size),
        context=shape.context,
        stored_bytes=_most_common_bytes(tensors),
        queries=_queries(text, shape.hidden_size),
        has_normed_heads=any(NORM_OF_QUERIES.search(name) for name in tensors),
    )


def _tensors(folder: Path) -> Iterator[tuple[str, StoredTensor]]:
    for file in weight_files(folder):
        if file.is_file():
            yield from stored_tensors(file).items()


def _is_matrix(name: str, tensor: StoredTensor) -> bool:
    """Tells whether LoRA adapts a weight: of a layer, with rows and columns, perhaps for each expert."""
    if not LAYER.search(name) or SENSES.search(name) or name.endswith("bias"):
        return False
    is_fused = len(tensor.shape) == 3 and "expert" in name
    return (len(tensor.shape) == 2 or is_fused) and min(tensor.shape) > 1


def _rows_and_columns(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-2]) * (shape[-2] + shape[-1])


def _cached(text: Any, hidden: int) -> int:
    """Returns the keys and values of one token, as if every layer were attention."""
    heads = _said(text, HEADS) or 1
    queries = _said(text, HEADS[1:]) or heads
    width = getattr(text, "head_dim", None) or hidden // queries
    return int(2 * text.num_hidden_layers * heads * width)


def _queries(text: Any, hidden: int) -> int:
    """Returns the width of a layer's query heads together."""
    heads = _said(text, HEADS[1:])
    width = getattr(text, "head_dim", None)
    return heads * width if heads and isinstance(width, int) else hidden


def _said(text: Any, names: tuple[str, ...]) -> int | None:
    """Returns the first of these numbers that a config says; some say one for each layer."""
    for name in names:
        said = getattr(text, name, None)
        if isinstance(said, list | tuple) and said:
            said = max(said)
        if isinstance(said, int):
            return said
    return None


def _most_common_bytes(tensors: dict[str, StoredTensor]) -> int:
    by_type: dict[str, int] = {}
    for tensor in tensors.values():
        by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.n_bytes
    return max(1, BITS[max(by_type, key=by_type.__getitem__)] // 8)
