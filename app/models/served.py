"""Finds a base model among those that a server of another kind serves under names of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.models.models import Model


def served_name(listed: Iterable[Mapping[str, Any]], base: Model) -> str | None:
    """Returns the name of a base model in a list of `/v1/models`, known by our name for it or its folder."""
    for one in listed:
        if not one.get("parent") and (
            one["id"] in (base.name, base.folder) or _is_folder(one.get("root"), base)
        ):
            return str(one["id"])
    return None


def _is_folder(root: Any, base: Model) -> bool:
    return bool(root and base.folder) and Path(root).resolve() == Path(str(base.folder)).resolve()
