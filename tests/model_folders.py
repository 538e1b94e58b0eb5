"""Model folders for tests, written by hand: whole ones, and what may be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = {"model_type": "llama", "hidden_size": 4}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def packed(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def whole(*names: str) -> bytes:
    """A safetensors file that is right: tensors of two numbers each."""
    header = {name: tensor("F32", [2], 8 * i, 8 * i + 8) for i, name in enumerate(names or ("a", "b"))}
    return packed({"__metadata__": {"format": "pt"}, **header}, bytes(8 * len(header)))


def good_files() -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": whole(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode(),
    }


def write(folder: Path, files: Mapping[str, bytes | None]) -> Path:
    """Writes a good folder with these files in place of its own, or (None) without them."""
    for name, content in {**good_files(), **files}.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder
