"""Files that commands are given: JSON to read, data to upload that goes again if nothing comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from app.cli.output import CliError, errors

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

    from graders.strict_json import StrictJsonError

FILE_ID = "file-"
SHOWN = 80
"""Characters of a line that are shown where its JSON is broken."""
SERVER_FAULT = 500
"""The first HTTP status that says nothing of whether a request was carried out (RFC 9110, section 15.6)."""


def read_text(path: Path) -> str:
    """Returns a file's text. Raises `CliError` for what is no UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise CliError(f"{path} is no UTF-8 text: byte {fault.start} cannot be read") from None


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises `CliError`."""
    return parse_object(read_text(path), str(path))


def parse_object(text: str, name: str) -> dict[str, Any]:
    """Returns the JSON object that a text holds. Raises `CliError` that calls it by `name`."""
    from graders import strict_json

    try:
        value = strict_json.loads(text)
    except strict_json.StrictJsonError as fault:
        raise CliError(f"{name} is no JSON: {_where(text, fault)}") from None
    if not isinstance(value, dict):
        raise CliError(f"{name} holds no JSON object")
    return value


def _where(text: str, fault: StrictJsonError) -> str:
    """Returns a fault with the line that it is in, and a mark below its place."""
    lines = text.splitlines()
    if fault.line is None or fault.column is None or fault.line > len(lines):
        return str(fault)
    start = max(0, fault.column - 1 - SHOWN // 2)
    shown = lines[fault.line - 1][start : start + SHOWN]
    return f"{fault}\n  {shown}\n  {' ' * (fault.column - 1 - start)}^"


def checked(given: str) -> str:
    """Returns a path or the id of a file at the service. Raises `CliError` for what is neither."""
    if given.startswith(FILE_ID) or Path(given).is_file():
        return given
    raise CliError(f"{given} is neither a file here nor the id of one ({FILE_ID}...)")


@contextmanager
def uploaded(client: OpenAI, given: str, purpose: Literal["evals", "fine-tune"]) -> Iterator[str]:
    """Yields the id of a file, which is uploaded if it is a path, and deleted again if the block is refused.

    Raises `CliError`.
    """
    from openai import APIStatusError

    if not Path(checked(given)).is_file():
        yield given
        return
    with Path(given).open("rb") as file:
        file_id = client.files.create(file=file, purpose=purpose).id
    errors.print(f"Uploaded {given} as {file_id}.", markup=False, soft_wrap=True)
    try:
        yield file_id
    except APIStatusError as fault:
        if was_refused(fault):
            delete(client, [file_id])
        raise


def was_refused(fault: APIStatusError) -> bool:
    """Tells whether a request was certainly not carried out: then what was uploaded for it is of no use."""
    return fault.status_code < SERVER_FAULT


def delete(client: OpenAI, file_ids: Iterable[str]) -> None:
    """Deletes files, and says so; one that cannot be deleted is told, and hides no other fault."""
    from openai import APIError

    for file_id in file_ids:
        try:
            client.files.delete(file_id)
            errors.print(f"Deleted {file_id} again.", markup=False, soft_wrap=True)
        except APIError as fault:
            errors.print(f"{file_id} stays: {fault.message}", markup=False, soft_wrap=True)
