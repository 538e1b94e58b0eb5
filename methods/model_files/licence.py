"""Which licence a model folder says that it has: by its card, or by the text of one."""

from __future__ import annotations

import re
from pathlib import Path

CARDS = ("README.md", "MODEL_CARD.md")
TEXTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
OTHER = "other"
"""What the hub calls a licence that has no id of its own."""
MOST_CHARACTERS = 20_000
"""How much of a card is looked at for its front matter; the longest published ones have a few thousand."""
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
"""What an id of a licence looks like, on the hub and at SPDX."""


def licence_in(folder: Path) -> str | None:
    """Returns the id of a model folder's licence; `OTHER` where there is a text alone, None without any."""
    said = next(filter(None, (_front_matter(folder / name) for name in CARDS)), {})
    named = said.get("license")
    if named == OTHER and "license_name" in said:
        named = said["license_name"]
    if named and LICENCE.fullmatch(named):
        return named
    return OTHER if any((folder / name).is_file() for name in TEXTS) else None


def _front_matter(card: Path) -> dict[str, str]:
    """Returns the plain values at the head of a card, between two lines of dashes."""
    try:
        with card.open(encoding="utf-8") as file:
            first, *lines = file.read(MOST_CHARACTERS).splitlines() or [""]
    except (OSError, ValueError):
        return {}
    if first.strip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines:
        if line.strip() == "---":
            return found
        name, colon, value = line.partition(":")
        if colon and name == name.strip():
            found[name] = value.strip().strip("'\"")
    return {}
