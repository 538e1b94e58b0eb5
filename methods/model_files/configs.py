"""Reads the JSON files and the chat template of a model folder: they parse, and they name no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
"""The folder of templates by name, beside the default one in `TEMPLATE`."""
DEFAULT = "default"
"""The name of the template that is used where no other is asked for."""
OLD_TEMPLATE = "chat_template.json"
"""Where processors of multimodal models keep a template; tokenizers do not look there."""
ADAPTER = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
"""Files that each hold a whole vocabulary."""
NO_OBJECTS = frozenset(("modules.json",))
"""JSON files of published models that hold a list."""

MAX_JSON_BYTES = 256 * 2**20
"""The largest published tokenizer.json have 35 MB."""
MAX_NAMES = 10
"""Names of templates that a message tells. Chosen, not measured."""
MAX_TEMPLATE_BYTES = 2**20
"""The longest published templates have 20 kB."""

GIVE_ONE = (
    f"put one into {TEMPLATE}, that of an instruction-tuned model of the same family or one of your own"
    " (docs/models.md shows a short one)"
)


def json_files(folder: Path) -> Iterator[tuple[str, Any, str | None]]:
    """Yields name, content and fault of every JSON file of a folder; one of the last two is None."""
    for path in sorted(folder.glob("*.json")):
        if path.is_file():
            content, fault = _read(path)
            yield path.name, content, fault


def _read(path: Path) -> tuple[Any, str | None]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None, f"has more than {MAX_JSON_BYTES:,} bytes"
        content = json.loads(path.read_text("utf-8"))
    except OSError as problem:
        return None, f"cannot be read: {problem.strerror}"
    except RecursionError:
        return None, "is no JSON that can be read: it is nested too deeply"
    except ValueError as problem:
        return None, f"is no JSON: {str(problem)[:200]}"
    if not isinstance(content, dict) and path.name not in NO_OBJECTS:
        return None, "is no JSON object"
    return content, None


def config_faults(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yields what of a parsed config asks for more than this folder's data."""
    if name == ADAPTER:
        yield "makes this an adapter of another model: add the two merged (`merge_and_unload` of PEFT)"
    if name.endswith(CONFIG) and (code := _code_named(content)):
        yield (
            f"names code in its auto_map ({code[:100]}), and no code of a model is run here: remove auto_map"
            " if transformers knows the model by itself"
        )
    if name == CONFIG and (how := content.get("quantization_config")):
        method = how.get("quant_method") if isinstance(how, dict) else None
        yield (
            f"says that its weights are quantised already ({str(method or 'by some method')[:50]}), and such"
            " weights are neither trained nor delivered here: take the model's unquantised weights, and"
            " base_precision 'nf4' or 'int8' quantises them for a job"
        )
    if name == CONFIG and not isinstance(content.get("model_type"), str):
        yield "has no model_type, by which transformers finds the model's class"


def _code_named(content: Mapping[str, Any]) -> str | None:
    """Returns what an `auto_map` names, at whatever depth."""
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("auto_map"):
                return json.dumps(value["auto_map"])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return None


def template_fault(folder: Path, tokenizer_config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns file and fault if the tokenizer has no chat template that could be rendered.

    A tokenizer may have several by name: `tool_use` for conversations with tools, `default` for the others.
    Those in files hide those of the tokenizer's config.
    """
    files = {DEFAULT if path.name == TEMPLATE else path.stem: path for path in _template_files(folder)}
    for path in files.values():
        if fault := _file_fault(path):
            return str(path.relative_to(folder)), fault
    if files:
        return None if DEFAULT in files else (MORE_TEMPLATES, _no_default(files))
    found = tokenizer_config.get("chat_template")
    if isinstance(found, list):
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
    named = found if isinstance(found, dict) else {DEFAULT: found}
    usable = [str(name) for name, text in named.items() if isinstance(text, str) and text.strip()]
    if usable:
        return None if DEFAULT in usable else (TOKENIZER_CONFIG, _no_default(usable))
    if (folder / OLD_TEMPLATE).is_file():
        return OLD_TEMPLATE, f"is no place where tokenizers look for a template: {GIVE_ONE}"
    return TOKENIZER_CONFIG, f"has no chat template: {GIVE_ONE}"


def _template_files(folder: Path) -> list[Path]:
    files = [*sorted((folder / MORE_TEMPLATES).glob("*.jinja")), folder / TEMPLATE]
    return [path for path in files if path.is_file()]


def _no_default(names: Iterable[str]) -> str:
    told = ", ".join(sorted(names)[:MAX_NAMES])
    return (
        f"has chat templates by name ({told}) and none named {DEFAULT}, which conversations without tools"
        f" take: {GIVE_ONE}"
    )


def _file_fault(path: Path) -> str | None:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            return f"has more than {MAX_TEMPLATE_BYTES:,} bytes"
        return None if path.read_text("utf-8").strip() else f"is an empty chat template: {GIVE_ONE}"
    except OSError as problem:
        return f"cannot be read: {problem.strerror}"
    except ValueError:
        return "is no text in UTF-8"
