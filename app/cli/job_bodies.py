"""Bodies of jobs, sent with the files that they name by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.given_files import delete, was_refused
from app.cli.output import errors

if TYPE_CHECKING:
    from openai import OpenAI

FILES = ("training_file", "validation_file")


@dataclass
class Uploads:
    """Files that were uploaded for jobs, each once."""

    names: Mapping[str, str] = field(default_factory=dict)
    """The names that files are to have here, by their paths; else the paths' own."""
    ids: dict[str, str] = field(default_factory=dict)
    """Ids of files here, by path."""


def post_with_files(
    client: OpenAI, path: str, body: Mapping[str, Any], uploads: Uploads | None = None
) -> Any:
    """Sends the body as it is, for the client's types know less than services take; paths become files.

    What was uploaded for a request that the service refuses is deleted. After any other fault it stays: the
    request may have been carried out.
    """
    from openai import APIStatusError

    uploads = uploads or Uploads()
    n_before = len(uploads.ids)
    try:
        return client.post(path, body=_with_ids(client, body, uploads), cast_to=object)
    except APIStatusError as fault:
        if was_refused(fault):
            new = [*uploads.ids][n_before:]
            delete(client, [uploads.ids.pop(path) for path in new])
        raise


def _with_ids(client: OpenAI, body: Mapping[str, Any], uploads: Uploads) -> dict[str, Any]:
    """Returns the body with the ids of files in place of paths, which are uploaded; says so."""
    body = dict(body)
    for name in FILES:
        value = body.get(name)
        if isinstance(value, str) and (value in uploads.ids or Path(value).is_file()):
            body[name] = uploads.ids.get(value) or _upload(client, value, uploads)
    return body


def _upload(client: OpenAI, path: str, uploads: Uploads) -> str:
    with Path(path).open("rb") as file:
        name = uploads.names.get(path, Path(path).name)
        made = client.files.create(file=(name, file), purpose="fine-tune").id
    uploads.ids[path] = made
    errors.print(f"Uploaded {path} as {made}.", markup=False, soft_wrap=True)
    return made
