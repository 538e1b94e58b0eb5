"""What there is to know of a model folder: architecture, sizes, dtype, and what its templates read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from methods.model_files.weights import stored_tensors, weight_files
from workers.inspect.engine import inspect as try_engine
from workers.training.model.base_model import auto_class
from workers.training.model.size import size_of
from workers.training.rendering.family import family_of
from workers.training.rendering.variables import variables_read

FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def inspect(folder: str) -> dict[str, Any]:
    """Returns what the files of a model folder say, and what the engine makes of them.

    That is `architecture`, `model_type`, `size` (a `ModelSize`, or None), `dtypes` of weights, `variables`
    that the chat templates read, the `family` of these (None without any), and what the engine's trial found
    (`path`, `reason` and more).
    """
    config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    size = size_of(Path(folder))
    files = weight_files(Path(folder))
    dtypes = {tensor.dtype for file in files for tensor in stored_tensors(file).values()}
    tokenizer = AutoTokenizer.from_pretrained(folder, **FROM_HERE)
    return {
        "architecture": auto_class(config)._model_mapping[type(config)].__name__,
        "model_type": config.model_type,
        "size": None if size is None else size._asdict(),
        "dtypes": sorted(dtypes),
        "variables": variables_of(tokenizer.chat_template),
        "family": family_of(tokenizer)._asdict() if tokenizer.chat_template else None,
        **try_engine(folder),
    }


def variables_of(templates: str | dict[str, str] | None) -> list[str]:
    """Returns the names that chat templates read of what they are given, in the order of the alphabet."""
    texts = templates.values() if isinstance(templates, dict) else [templates or ""]
    return sorted(set().union(*map(variables_read, texts)))
