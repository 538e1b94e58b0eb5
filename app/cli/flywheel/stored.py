"""`cherry stored`: stored completions, through the API: what is there, erasing it, and what has gone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.flywheel.options import After, Before, Metadata, Model, given, metadata_of, seconds_of
from app.cli.output import AsJson, CliError, console, errors, print_json, print_table, when

cli = typer.Typer(help="Stored completions.", no_args_is_help=True)

SHOWN = 60
"""Characters of an answer in the list."""


@cli.command("list")
def list_stored(
    model: Model = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 20,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show stored chat completions, newest first."""
    query: dict[str, Any] = {"limit": limit, "order": "desc"}
    if model is not None:
        query["model"] = model
    if (pairs := metadata_of(metadata)) is not None:
        query["metadata"] = pairs
    with open_client(url, key, data) as client:
        rows = [row.to_dict() for row in client.chat.completions.list(**query).data]
    if as_json:
        print_json(rows)
        return
    headings = {"id": "ID", "created": "Created", "model": "Model", "answer": "Answer"}
    shown = [{**row, "created": when(int(row["created"])), "answer": _answer(row)} for row in rows]  # type: ignore[call-overload]
    print_table(headings, shown, empty="There are no stored completions: send requests with store=True.")


def _answer(row: Any) -> str:
    text = " ".join((row["choices"][0]["message"]["content"] or "").split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


@cli.command()
def erase(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="chatcmpl-... or resp_...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the project has stored.")] = False,
    model: Model = None,
    metadata: Metadata = None,
    after: After = None,
    before: Before = None,
    delete_datasets: Annotated[
        bool, typer.Option("--delete-datasets", help="Delete the files that hold rows of it, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Delete stored completions and responses, and the feedback on them, for good."""
    body = given(
        ids=ids or None,
        model=model,
        metadata=metadata_of(metadata),
        created_after=seconds_of(after, "--after"),
        created_before=seconds_of(before, "--before"),
    )
    if bool(body) == everything:
        raise CliError("say what shall go: ids, --model, --metadata, a time, or --all alone")
    body |= {"all": everything, "datasets": "delete" if delete_datasets else "keep"}
    if not yes:
        typer.confirm("Erase it? There is no way back", abort=True, err=True)
    with open_client(url, key, data) as client:
        done: Any = client.post("/erasures", body=body, cast_to=object)
    if as_json:
        print_json(done)
        return
    console.print(f"{done['id']}: {_counted(done['counts'])}", markup=False, soft_wrap=True)
    for one in done["datasets"]:
        _tell_of_dataset(one)


def _counted(counts: dict[str, int]) -> str:
    gone = [f"{name.replace('_', ' ')} {n}" for name, n in counts.items() if n]
    return ", ".join(gone) or "nothing went"


def _tell_of_dataset(one: Any) -> None:
    what = "was deleted" if one["file_deleted"] else "still holds them"
    line = f"{one['id']} has {one['rows']} rows of it; its file {one['file_id']} {what}."
    if one["jobs"]:
        line += f" Trained on it: {', '.join([*one['jobs'], *one['models']])}."
    errors.print(line, markup=False, soft_wrap=True)


@cli.command()
def erasures(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show what of the stored has gone, newest first: on request, or as its time was over."""
    with open_client(url, key, data) as client:
        page: Any = client.get("/erasures?limit=1000", cast_to=object)
    if as_json:
        print_json(page["data"])
        return
    headings = {"id": "ID", "created_at": "When", "cause": "Cause", "requested_by": "By", "counts": "What"}
    rows = [
        {**row, "created_at": when(row["created_at"]), "counts": _counted(row["counts"])}
        for row in page["data"]
    ]
    print_table(headings, rows, empty="Nothing has gone yet.")
