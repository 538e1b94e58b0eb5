"""A checkpoint becomes a GGUF file that answers as it was trained, or a refusal that says why not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGUFType, GGUFWriter
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from app.settings import get_settings
from workers.base_models import ADAPTER, CONFIG, MODEL
from workers.exports.gguf import modelfile
from workers.exports.gguf.adapter import write_adapter
from workers.exports.gguf.architectures import Architecture, add_config, architecture_of
from workers.exports.gguf.refused import GgufRefused
from workers.exports.gguf.tensors import (
    FILE_KINDS,
    SHORT,
    Part,
    add_infos,
    most_of,
    parts_of,
    write_numbers,
)
from workers.exports.gguf.tokenizer_check import python_with_llama, rule_for
from workers.exports.gguf.vocabulary import Vocabulary, vocabulary_of
from workers.training.model.base_model import end_ids

Tell = Callable[[str, float], None]
"""Hears the phase of the work, and what share of the work is done."""
FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
ADAPTER_FILE = "adapter.gguf"
CHECKED = 0.2
"""The share of the work that is done when the tokenizer is checked. Chosen, not measured."""


class Model(NamedTuple):
    """Holds a model as it is written."""

    config: Any
    architecture: Architecture
    parts: list[Part]
    tokenizer: Any
    vocabulary: Vocabulary


def write_gguf(checkpoint: Path, base: Path, out: Path, tell: Tell, llama: str | None = None) -> None:
    """Writes `model-f32.gguf` (f16 or bf16 for large models), `adapter.gguf` and a Modelfile to `out`.

    `checkpoint` holds `model/`, and for LoRA `adapter/`; `base` is the folder of the model that the job has
    started from. `llama` is a Python with llama-cpp-python, by default the operator's setting. Raises
    `GgufRefused` with a reason for the checkpoint's owner.
    """
    tell("tokenizer", 0.0)
    python = python_with_llama(get_settings().llama_python if llama is None else llama)
    model = read_model(checkpoint / MODEL)
    with tempfile.TemporaryDirectory(prefix="cherry-gguf-") as scratch:
        rule = rule_for(model.vocabulary, model.tokenizer, python, Path(scratch))
    file = write_model(model, rule, out, lambda share: tell("weights", CHECKED + (1 - CHECKED) * share))
    fault = None
    if (checkpoint / ADAPTER).is_dir():
        fault = _adapter_fault(checkpoint / ADAPTER, base, out / ADAPTER_FILE, model)
    text = modelfile.text_for(file.name, model.tokenizer, model.vocabulary, fault)
    (out / modelfile.NAME).write_text(text, "utf-8")
    tell("done", 1.0)


def read_model(folder: Path) -> Model:
    """Returns what a model folder's file will hold. Raises `GgufRefused`."""
    config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    architecture = architecture_of(config)
    parts = parts_of(folder, config, architecture)
    tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_HERE)
    ends = end_ids(_generation_config(folder, config), tokenizer)
    return Model(config, architecture, parts, tokenizer, vocabulary_of(tokenizer, config.vocab_size, ends))


def write_model(model: Model, rule: str | None, out: Path, tell: Callable[[float], None]) -> Path:
    """Writes a model as one file to the folder `out`, with the name of its tokenizer's split rule."""
    dtype = most_of(model.parts)
    file = out / f"model-{SHORT[dtype]}.gguf"
    writer = GGUFWriter(file, model.architecture.name)
    writer.add_type(GGUFType.MODEL)
    writer.add_name(f"{model.config.model_type} tuned with Cherry")
    writer.add_file_type(FILE_KINDS[dtype])
    add_config(writer, model.config)
    model.vocabulary.add_to(writer)
    if rule is not None:
        writer.add_tokenizer_pre(rule)
    add_infos(writer, model.parts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for share in write_numbers(writer, model.parts):
        tell(share)
    writer.close()
    return file


def _generation_config(folder: Path, config: Any) -> Any:
    try:
        return GenerationConfig.from_pretrained(folder, **FROM_HERE)
    except OSError:  # there is none, and transformers takes what the config says
        return GenerationConfig.from_model_config(config)


def _adapter_fault(folder: Path, base: Path, file: Path, model: Model) -> str | None:
    """Writes the adapter's file, or returns why there is none: the model's file holds what it has taught."""
    config = AutoConfig.from_pretrained(base, **FROM_HERE) if (base / CONFIG).is_file() else model.config
    try:
        write_adapter(folder, file, config, model.architecture)
    except GgufRefused as refused:
        file.unlink(missing_ok=True)
        return str(refused)
    return None
