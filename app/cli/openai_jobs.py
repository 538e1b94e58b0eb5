"""`cherry import openai-job`: a job as it was written for OpenAI or Azure, made to run here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.output import AsJson, CliError, console, errors, print_json

if TYPE_CHECKING:
    from openai import OpenAI

WANTED = ("model", "training_file", "validation_file", "suffix", "seed", "metadata", "integrations", "method")
RESPONSE_ONLY = (
    "object",
    "id",
    "created_at",
    "finished_at",
    "estimated_finish",
    "fine_tuned_model",
    "organization_id",
    "status",
    "result_files",
    "trained_tokens",
    "error",
    "usage_metrics",
    "shared_with_openai",
    "eval_id",
    "user_provided_suffix",
    "hyperparameters",
)
"""Fields that only responses hold, and the hyperparameters that they repeat: nothing is lost without them."""
AZURE = {
    "trainingType": "where Azure trains",
    "training_type": "where Azure trains",
    "properties": "Azure's own",
}
UNSERVED = {
    "tools": "tools on servers, called while the model samples",
    "max_episode_steps": "steps with tools",
}
"""Fields of Azure's preview. Without them the job would be another one."""
SERVER_FAULT = 500
"""The first HTTP status that says nothing of whether a request was carried out (RFC 9110, section 15.6)."""


@dataclass
class Imported:
    """What to send here, and what was changed for it."""

    body: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def import_job(published: Mapping[str, Any]) -> Imported:
    """Makes a create body out of a published one, or out of a job as a service shows it. Raises
    `CliError`."""
    found = Imported({name: published[name] for name in WANTED if published.get(name) is not None})
    is_response = published.get("object") == "fine_tuning.job"
    if is_response and published.get("user_provided_suffix"):
        found.body["suffix"] = published["user_provided_suffix"]
    if not is_response and published.get("hyperparameters") and "method" not in found.body:
        found.body["hyperparameters"] = published["hyperparameters"]
    for name, value in published.items():
        if name not in WANTED and name not in RESPONSE_ONLY and value is not None:
            found.notes.append(f"left out '{name}': {AZURE.get(name, 'not known here')}")
    if "model" not in found.body:
        raise CliError("the job names no 'model'")
    if isinstance(method := found.body.get("method"), Mapping):
        found.body["method"] = _method(method, found.notes)
    return found


def _method(method: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Returns the block that counts, without what says nothing."""
    kind = method.get("type")
    block = method.get(str(kind))
    if not isinstance(block, Mapping):
        return {"type": kind}
    for name, what in UNSERVED.items():
        if block.get(name):
            raise CliError(f"method.{kind}.{name} ({what}) has no counterpart here")
    kept = {name: value for name, value in block.items() if value is not None and name not in UNSERVED}
    others = [name for name in method if name not in ("type", kind) and method[name] is not None]
    notes += [f"left out 'method.{name}': the method is '{kind}'" for name in others]
    return {"type": kind, str(kind): kept}


def openai_job(
    path: Annotated[Path, typer.Argument(metavar="JOB.json", help="A create body, or a job as answered.")],
    model: Annotated[
        str | None, typer.Option(help="Model to train here.", show_default="the job's, or its alias")
    ] = None,
    training_file: Annotated[
        str | None, typer.Option(help="File here, by id, or a path to upload.", show_default="the job's")
    ] = None,
    validation_file: Annotated[
        str | None, typer.Option(help="The same for validation.", show_default="the job's")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Start the job.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Read a job made for OpenAI or Azure, and print it, or start it, as one of this service."""
    found = import_job(read_job(path))
    given = {"model": model, "training_file": training_file, "validation_file": validation_file}
    found.body |= {name: value for name, value in given.items() if value is not None}
    for note in found.notes:
        errors.print(note, markup=False, soft_wrap=True)
    if not create:
        print(json.dumps(found.body, indent=2, ensure_ascii=False))
        return
    with open_client(url, key, data) as client:
        job = post_with_files(client, "/fine_tuning/jobs", found.body)
    if as_json:
        print_json(job)
    else:
        console.print(f"{job['id']}  {job['status']}  {job['model']}", markup=False, soft_wrap=True)


def post_with_files(client: OpenAI, path: str, body: Mapping[str, Any]) -> Any:
    """Sends the body as it is, for the client's types know less than services take; paths become files.

    What was uploaded for a request that the service refuses is deleted. After any other fault it stays: the
    request may have been carried out.
    """
    from openai import APIStatusError

    ids: list[str] = []
    try:
        return client.post(path, body=_uploaded(client, body, ids), cast_to=object)
    except APIStatusError as fault:
        if fault.status_code < SERVER_FAULT:
            _delete(client, ids)
        raise


def _delete(client: OpenAI, ids: Sequence[str]) -> None:
    """Deletes files, and says so; one that cannot be deleted is told, and hides no other fault."""
    from openai import APIError

    for file_id in ids:
        try:
            client.files.delete(file_id)
            errors.print(f"Deleted {file_id} again.", markup=False, soft_wrap=True)
        except APIError as fault:
            errors.print(f"{file_id} stays: {fault.message}", markup=False, soft_wrap=True)


def _uploaded(client: OpenAI, body: Mapping[str, Any], ids: list[str]) -> dict[str, Any]:
    """Returns the body with the ids of files in place of paths, which are uploaded; notes and says so."""
    body = dict(body)
    for name in ("training_file", "validation_file"):
        value = body.get(name)
        if isinstance(value, str) and Path(value).is_file():
            with Path(value).open("rb") as file:
                body[name] = client.files.create(file=file, purpose="fine-tune").id
            ids.append(body[name])
            errors.print(f"Uploaded {value} as {body[name]}.", markup=False, soft_wrap=True)
    return body


def read_job(path: Path) -> dict[str, Any]:
    """Reads a job's body. Raises `CliError`."""
    try:
        published = json.loads(path.read_text("utf-8-sig"))
    except ValueError as problem:
        raise CliError(f"{path} is no JSON: {problem}") from None
    if not isinstance(published, dict):
        raise CliError(f"{path} holds no JSON object")
    return published
