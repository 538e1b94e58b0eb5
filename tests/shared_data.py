"""Where the data lies that is too large, or not ours, to be in the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("CHERRY_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""The folder that CHERRY_SHARED names, or `shared` beside the repository."""


def shared_path(name: str) -> Path:
    """A file or folder of the shared data, such as `data/e2e-nlg-200`; skips the test if it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {name} in the shared data (set CHERRY_SHARED to its folder)")
    return path


def shared_rows(name: str) -> list[dict[str, Any]]:
    """All rows of a data folder: train.jsonl, then validation.jsonl if there is one."""
    folder = shared_path(name)
    files = [folder / "train.jsonl", folder / "validation.jsonl"]
    return [
        json.loads(line)
        for file in files
        if file.exists()
        for line in file.read_bytes().split(b"\n")
        if line.strip()
    ]
