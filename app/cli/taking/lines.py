"""How a model of the service is taken home and used there, in lines to copy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.cli.output import console
from app.exports.use import FOLDER

if TYPE_CHECKING:
    from openai import OpenAI

PYTHON = "transformers"
"""The program whose lines are Python; the others are of a shell."""


def checkpoint_of(client: OpenAI, name: str) -> dict[str, Any]:
    """Returns a kept checkpoint by its id or by a name. Raises the client's errors."""
    found: Any = client.get(f"/fine_tuning/checkpoints/{quote(name, safe='')}", cast_to=object)
    return dict(found)


def print_forms(checkpoint: Mapping[str, Any]) -> None:
    """Prints how a checkpoint is downloaded in each form, and used then."""
    name = checkpoint["fine_tuned_model_checkpoint"]
    console.print("\nTake it home:", markup=False)
    for form in checkpoint["downloads"]:
        if form["refused"]:
            continue
        command = f"cherry models download {shlex.quote(name)} --format {form['format']} --to {FOLDER}"
        console.print(f"\n{command}", markup=False, soft_wrap=True)
        print_use(form, FOLDER)


def print_use(form: Mapping[str, Any], folder: str) -> None:
    """Prints the lines that use a form, once it is unpacked in a folder."""
    for program, text in filled(form["use"], folder):
        console.print(f"\n  {program}", markup=False)
        for line in text.splitlines():
            console.print(f"    {line}".rstrip(), markup=False, soft_wrap=True)


def filled(uses: Mapping[str, str], folder: str) -> Iterator[tuple[str, str]]:
    """Yields the lines by program, with the name of a folder in them."""
    for program, text in uses.items():
        name = repr(folder)[1:-1] if program == PYTHON else shlex.quote(folder)
        yield program, text.replace(FOLDER, name)
