"""The folders that a job delivers: a complete model, and a LoRA adapter for its base.

Whoever loads one must get what was trained: the base's dtypes, every token that ends an answer, and whatever
else lies in the base's folder for its tokenizer and processors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig

from methods.model_files.adapters import ordered
from methods.model_files.configs import ADAPTER, CONFIG
from methods.model_files.generation import GENERATION_CONFIG, OTHER_DECODING
from methods.model_files.weights import INDEX, WEIGHTS
from workers.training.model.stored_types import StoredTypes, stored_types, with_dtype

END_IDS = "eos_token_id"
DERIVED = "_from_model_config"
OTHER_WEIGHTS = frozenset((WEIGHTS, ".gguf", ".onnx", ".h5", ".msgpack", ".tflite", ".npz", ".npy"))
"""Weights of the base, in the formats of this and of other frameworks; the tuned model has its own."""
PICTURES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp4", ".pdf"))


def write_model(folder: Path, base: Path, model: Any, end_ids: Sequence[int]) -> None:
    """Writes a complete model folder: what lies in the base's, with the weights of `model`.

    `end_ids` are the tokens that an answer was trained to end with.
    """
    types = stored_types(base)
    with _plain_generation(model, is_replaced=(base / GENERATION_CONFIG).is_file()):
        _write_weights(folder, model, types)
    _copy_what_lies_beside(base, folder)
    _say_dtype(folder / CONFIG, types.of_model)
    _say_ends(folder / GENERATION_CONFIG, end_ids)


def write_beside_adapter(folder: Path, base: Path, end_ids: Sequence[int]) -> None:
    """Writes what an adapter's folder holds beside the adapter: tokenizer, template, end tokens."""
    _copy_what_lies_beside(base, folder, without=(CONFIG,))
    _say_ends(folder / GENERATION_CONFIG, end_ids)


def order_config(folder: Path) -> None:
    """Lets an adapter's config be the same bytes each time: PEFT keeps names of modules as sets."""
    _write_json(folder / ADAPTER, ordered(_json(folder / ADAPTER)))


def decodes_otherwise(base: Path) -> str | None:
    """Returns a warning if the base's generation config makes greedy answers others than those measured."""
    said = _json(base / GENERATION_CONFIG)
    odd = {name: said[name] for name, plain in OTHER_DECODING.items() if said.get(name) not in plain}
    if not odd:
        return None
    shown = ", ".join(f"{name} {json.dumps(value)[:40]}" for name, value in odd.items())
    return (
        f"The base's {GENERATION_CONFIG} sets {shown}, which training and validation do not apply, and the"
        " delivered model's keeps it. Switch it off where you use the model, to get the answers that were"
        " measured."
    )


@contextmanager
def _plain_generation(model: Any, *, is_replaced: bool) -> Iterator[None]:
    """Lets a model have a plain generation config, where the one that is written is replaced by the base's.

    transformers 5.17 refuses to write some that it reads: those with a `top_k` and without `do_sample`.
    """
    own = model.generation_config
    if is_replaced:
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own


def _write_weights(folder: Path, model: Any, types: StoredTypes) -> None:
    dtype = torch.float32 if types.is_mixed else types.of_model
    cast: dict[int, Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        # Tied weights are one tensor and have to stay one.
        kept = cast.setdefault(tensor.data_ptr(), _in(tensor.detach(), dtype))
        state[name] = kept if kept.shape == tensor.shape else _in(tensor.detach(), dtype)
    model.save_pretrained(folder, state_dict=state)
    if types.is_mixed:
        _cast_files(folder, types)


def _in(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _cast_files(folder: Path, types: StoredTypes) -> None:
    """Gives each weight the dtype that it has in the base's files; only these have the base's names."""
    n_bytes = 0
    for file in sorted(folder.glob(f"*{WEIGHTS}")):
        tensors = {name: _in(tensor, types.of(name)) for name, tensor in load_file(file).items()}
        n_bytes += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, file, metadata={"format": "pt"})
    for file in folder.glob(f"*{INDEX}"):
        index = _json(file)
        _write_json(file, {**index, "metadata": {**index.get("metadata", {}), "total_size": n_bytes}})


def _copy_what_lies_beside(base: Path, folder: Path, without: Sequence[str] = ()) -> None:
    for file in _beside(base):
        name = file.relative_to(base)
        if str(name) not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)


def _beside(base: Path) -> Iterator[Path]:
    """Yields the files of a base, in folders of it too, that training does not change.

    Its weights, its card and what is hidden stay with it.
    """
    for file in sorted(base.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(base).parts)
        if is_hidden or not file.is_file() or file.name.endswith(".index.json"):
            continue
        if file.suffix.lower() not in {*OTHER_WEIGHTS, *PICTURES, ".md"}:
            yield file


def _say_dtype(file: Path, dtype: torch.dtype) -> None:
    config = _json(file)
    if (changed := with_dtype(config, dtype)) != config:
        _write_json(file, changed)


def _say_ends(file: Path, end_ids: Sequence[int]) -> None:
    """Lets a generation config, made if there is none, name every end token; the rest of it stays."""
    said = _json(file)
    # Older versions of transformers take the end token out of config.json again where this stands.
    was_derived = said.pop(DERIVED, None) is not None
    ids = said.get(END_IDS)
    if was_derived or {*(ids if isinstance(ids, list) else [ids])} != {*end_ids}:
        _write_json(file, {**said, END_IDS: list(end_ids) if len(end_ids) > 1 else end_ids[0]})


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
