"""The messages that docs/troubleshooting.md quotes are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)


@cache
def said_by_the_code() -> str:
    """All texts of our modules, each on a line of its own."""
    return "\n".join(text for package in ("app", "graders", "methods", "workers") for text in texts(package))


def texts(package: str) -> Iterator[str]:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_in_the_code(message: str) -> None:
    for part in message.split("…"):
        assert part.strip() in said_by_the_code(), f"the code no longer says {part.strip()!r}"


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) == len(set(QUOTED)) >= 25
