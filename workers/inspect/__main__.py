"""`python -m workers.inspect NAME`: carries out one inspection. See protocol.py for what goes in and out."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from workers.inspect.protocol import Inspection, respond


def torch() -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module("workers.inspect.torch").inspect()
    return found


def model(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module("workers.inspect.model").inspect(folder)
    return found


def engine(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module("workers.inspect.engine").inspect(folder)
    return found


def facts(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module("workers.inspect.facts").inspect(folder)
    return found


def gguf(file: str, place: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module("workers.inspect.gguf").inspect(file, place)
    return found


INSPECTIONS: dict[str, Inspection] = {
    "torch": torch,
    "model": model,
    "engine": engine,
    "facts": facts,
    "gguf": gguf,
}
"""Each loads its module when it is called, so that a library that is missing is told like any other fault."""

if __name__ == "__main__":
    respond(INSPECTIONS, sys.argv[1])
