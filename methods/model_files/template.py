"""A model folder with another chat template: the files of the one it is made of, and the template."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from methods.model_files.configs import MAX_TEMPLATE_BYTES, MORE_TEMPLATES, OLD_TEMPLATE, TEMPLATE
from methods.model_files.folder import ModelFolderInvalid
from methods.model_files.weights import WEIGHTS

REPLACED = frozenset((TEMPLATE, OLD_TEMPLATE, MORE_TEMPLATES))
"""What holds templates beside the tokenizer's config, which `chat_template.jinja` hides."""


def read_template(path: Path) -> str:
    """Returns a chat template. Raises `ModelFolderInvalid`, or `OSError`."""
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        raise ModelFolderInvalid([f"{path} has more than {MAX_TEMPLATE_BYTES:,} bytes"])
    try:
        text = path.read_text("utf-8")
    except ValueError:
        raise ModelFolderInvalid([f"{path} is no text in UTF-8"]) from None
    if not text.strip():
        raise ModelFolderInvalid([f"{path} is an empty chat template"])
    return text


def with_template(folder: Path, place: Path, template: str, *, weights: bool = True) -> None:
    """Makes `place` a folder like `folder`, with this template alone.

    Weights are hard links, which take no room, and copies where `place` is on another file system; or they
    are left out. Other files are copies: a change of theirs changes no model that was added.
    """
    place.mkdir(parents=True)
    for path in kept_files(folder):
        target = place / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != WEIGHTS:
            shutil.copyfile(path, target)
        elif weights:
            _link(path.resolve(), target)
    (place / TEMPLATE).write_text(template, "utf-8")


def kept_files(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder that stay where its template is replaced, sorted; none that are hidden."""
    return (path for path in visible_files(folder) if path.relative_to(folder).parts[0] not in REPLACED)


def visible_files(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and of those in it, sorted; none that are hidden."""
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not is_hidden:
            yield path


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)
