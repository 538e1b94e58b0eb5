"""The config of a LoRA adapter, as PEFT writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_SETS = ("target_modules", "exclude_modules")
"""What PEFT keeps as sets of names, and writes in any order."""


def ordered(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config of an adapter so that it is the same bytes each time."""
    return {
        name: sorted(said) if name in OF_SETS and isinstance(said, list) else said
        for name, said in config.items()
    }
