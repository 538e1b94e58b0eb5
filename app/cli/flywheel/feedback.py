"""`cherry feedback`: what people say of stored completions, through the API."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.flywheel.options import Metadata, given, metadata_of
from app.cli.output import AsJson, CliError, console, print_json, print_table, tell, when

cli = typer.Typer(help="Feedback on stored completions.", no_args_is_help=True)


@cli.command()
def add(
    completion_id: Annotated[str, typer.Argument(help="chatcmpl-...")],
    reward: Annotated[float | None, typer.Option(min=0, max=1, help="How good it was.")] = None,
    correction: Annotated[str | None, typer.Option(help="What the model should have written.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="The true answer, which a grader compares with: JSON, or plain text.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="For people.")] = None,
    choice: Annotated[int, typer.Option(min=0, help="Which choice is meant, where there are several.")] = 0,
    metadata: Metadata = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say of a stored completion how good it was, what it should have been, or what is true."""
    said = given(
        reward=reward,
        correction=correction,
        reference=_json_or_text(reference),
        comment=comment,
        metadata=metadata_of(metadata),
    )
    if reward is None and correction is None and reference is None:
        raise CliError("say something: --reward, --correction or --reference")
    body = {"completion_id": completion_id, "choice": choice, **said}
    with open_client(url, key, data) as client:
        made: Any = client.post("/feedback", body=body, cast_to=object)
    if as_json:
        print_json(made)
    else:
        console.print(made["id"], markup=False)


def _json_or_text(value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


@cli.command("list")
def list_feedback(
    completion_id: Annotated[str | None, typer.Argument(help="Of this one.", show_default="all")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show feedback, newest first."""
    query = {"limit": 1000} | ({"completion_id": completion_id} if completion_id else {})
    with open_client(url, key, data) as client:
        page: Any = client.get("/feedback", cast_to=object, options={"params": query})
    if as_json:
        print_json(page["data"])
        return
    headings = {"id": "ID", "completion_id": "Completion", "created_at": "When", "said": "Said"}
    rows = [{**row, "created_at": when(row["created_at"]), "said": _said(row)} for row in page["data"]]
    print_table(headings, rows, empty="There is no feedback yet.")


def _said(row: dict[str, Any]) -> str:
    kinds = ("reward", "correction", "reference", "comment")
    return "; ".join(f"{kind} {row[kind]}" for kind in kinds if row[kind] is not None)


@cli.command()
def rm(
    feedback_id: Annotated[str, typer.Argument(help="fdbk_...")],
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Delete feedback. Files that were made with it stay."""
    with open_client(url, key, data) as client:
        client.delete(f"/feedback/{feedback_id}", cast_to=object)
    tell({"id": feedback_id, "deleted": True}, f"Deleted {feedback_id}.", as_json=as_json)
