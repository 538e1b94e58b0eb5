"""Where llama.cpp is for tests, and how they ask it. Without it (`make gguf` has it) they are skipped."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("CHERRY_TEST_LLAMA_PYTHON", "")
"""A Python that has llama-cpp-python."""
PROGRAM = Path(__file__).with_name("llama_program.py")

needs_llama = pytest.mark.skipif(
    not PYTHON, reason="CHERRY_TEST_LLAMA_PYTHON names no Python with llama-cpp-python (`make gguf` does)"
)


def ask(file: Path, adapter: Path | None = None, **asked: Any) -> Any:
    command = [PYTHON, str(PROGRAM), str(file), *([str(adapter)] if adapter else [])]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
