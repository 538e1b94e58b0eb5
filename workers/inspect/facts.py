"""What there is to know of a model folder: architecture, sizes, dtype, and what its templates read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import meta, nodes
from transformers import AutoConfig, AutoTokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template

from methods.model_files.weights import stored_tensors, weight_files
from workers.inspect.engine import inspect as try_engine
from workers.training.model.base_model import auto_class
from workers.training.model.size import size_of

FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}

ASKED_FOR = ("defined", "undefined", "none")
"""Tests by which a template asks whether it was given something."""


def inspect(folder: str) -> dict[str, Any]:
    """Returns `architecture`, `model_type`, `size` (a `ModelSize`, or None), `dtypes` of the weights,
    `variables` that the templates read, and what the engine's trial found (`path`, `reason` and more)."""
    config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    size = size_of(Path(folder))
    files = weight_files(Path(folder))
    dtypes = {tensor.dtype for file in files for tensor in stored_tensors(file).values()}
    return {
        "architecture": auto_class(config)._model_mapping[type(config)].__name__,
        "model_type": config.model_type,
        "size": None if size is None else size._asdict(),
        "dtypes": sorted(dtypes),
        "variables": variables_of(AutoTokenizer.from_pretrained(folder, **FROM_HERE).chat_template),
        **try_engine(folder),
    }


def variables_of(templates: str | dict[str, str] | None) -> list[str]:
    """Returns the names that chat templates read of what they are given, in the order of the alphabet."""
    texts = templates.values() if isinstance(templates, dict) else [templates or ""]
    return sorted(set().union(*map(_read_by, texts)))


def _read_by(template: str) -> set[str]:
    """Returns the names that one template reads. One that it sets itself is read where it asks for it first
    (`if date_string is not defined`)."""
    environment = _compile_jinja_template(template).environment
    tree = environment.parse(template)
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    tests = tree.find_all(nodes.Test)
    own -= {each.node.name for each in tests if each.name in ASKED_FOR and isinstance(each.node, nodes.Name)}
    found: set[str] = meta.find_undeclared_variables(tree)
    return found - set(environment.globals) - own
