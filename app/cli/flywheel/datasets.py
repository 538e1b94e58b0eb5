"""`cherry datasets`: training files of stored completions and the feedback on them, through the API."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.files import MethodName
from app.cli.flywheel.options import After, Before, Metadata, Model, given, metadata_of, seconds_of
from app.cli.given_files import read_text, uploaded
from app.cli.output import AsJson, print_json, print_table, tell, when
from app.cli.preflights import say, wait_until_over

if TYPE_CHECKING:
    from openai import OpenAI

cli = typer.Typer(help="Data sets of stored completions.", no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(help="dataset-...")]


class Said(StrEnum):
    """What feedback says."""

    REWARD = "reward"
    CORRECTION = "correction"
    REFERENCE = "reference"


class Dedupe(StrEnum):
    """Which repeated prompts are left out."""

    NEAR = "near"
    EXACT = "exact"
    NONE = "none"


class OnLeak(StrEnum):
    """What happens to rows with a prompt of the validation file."""

    DROP = "drop"
    FAIL = "fail"


@cli.command("from-stored")
def from_stored(
    format_: Annotated[MethodName, typer.Option("--format", help="The method of the next job.")],
    model: Model = None,
    metadata: Metadata = None,
    after: After = None,
    before: Before = None,
    feedback: Annotated[
        list[Said] | None, typer.Option(help="Of which this was said; several times for any of them.")
    ] = None,
    min_reward: Annotated[float | None, typer.Option(min=0, max=1, help="Least mean reward.")] = None,
    max_reward: Annotated[float | None, typer.Option(min=0, max=1, help="Most mean reward.")] = None,
    references: Annotated[
        bool, typer.Option(help="Of reinforcement: whether rows carry the true answer.")
    ] = True,
    dedupe: Annotated[Dedupe, typer.Option(help="Which repeated prompts are left out.")] = Dedupe.NEAR,
    validation_file: Annotated[
        str | None, typer.Option(help="No row has a prompt of it: a file here by id, or a path to upload.")
    ] = None,
    on_leak: Annotated[OnLeak, typer.Option(help="What happens to rows with such a prompt.")] = OnLeak.DROP,
    redact: Annotated[
        Path | None, typer.Option(help="Python file with `def redact(row)`, run on each row in the sandbox.")
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="The newest so many.")] = None,
    filename: Annotated[str | None, typer.Option(help="Name of the file: *.jsonl.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make the next training file of stored completions and what was said of them.

    Interrupting the command cancels it. The exit code is 1 if there is no file.
    """
    wanted = given(
        model=model,
        metadata=metadata_of(metadata),
        created_after=seconds_of(after, "--after"),
        created_before=seconds_of(before, "--before"),
        feedback=feedback or None,
        min_reward=min_reward,
        max_reward=max_reward,
    )
    further = given(max_rows=max_rows, filename=filename, redact=read_text(redact) if redact else None)
    how = {"references": references, "dedupe": dedupe, "on_leak": on_leak}
    with open_client(url, key, data) as client:
        body = {"format": format_, "filter": wanted, **how, **further}
        _make(client, body, validation_file, as_json=as_json)


def _make(client: OpenAI, body: dict[str, Any], validation_file: str | None, *, as_json: bool) -> None:
    """Has a data set made, and shows it. Raises `typer.Exit` if there is none."""
    if validation_file is None:
        made: Any = client.post("/datasets/from-stored", body=body, cast_to=object)
    else:
        with uploaded(client, validation_file, "fine-tune") as file_id:
            whole = body | {"validation_file": file_id}
            made = client.post("/datasets/from-stored", body=whole, cast_to=object)
    done = wait_until_over(client, f"/datasets/{made['id']}", made, as_json=as_json)
    _show(done, as_json=as_json)
    if done["status"] != "succeeded":
        raise typer.Exit(1)


@cli.command("list")
def list_datasets(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show data sets, newest first."""
    with open_client(url, key, data) as client:
        page: Any = client.get("/datasets?limit=1000", cast_to=object)
    if as_json:
        print_json(page["data"])
        return
    headings = {"id": "ID", "status": "Status", "format": "Format", "rows": "Rows", "file_id": "File"}
    rows = [
        {**row, "rows": (row["report"] or {}).get("rows"), "created_at": when(row["created_at"])}
        for row in page["data"]
    ]
    print_table(headings | {"created_at": "Created"}, rows, empty="There are no data sets yet.")


@cli.command()
def show(
    dataset_id: DatasetId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Show what is in a data set, where that came from, and what was trained on it."""
    with open_client(url, key, data) as client:
        _show(client.get(f"/datasets/{dataset_id}", cast_to=object), as_json=as_json)


@cli.command()
def rows(
    dataset_id: DatasetId,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The first so many lines.")] = 100,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show from which completion and feedback each line of the file came."""
    with open_client(url, key, data) as client:
        page: Any = client.get(f"/datasets/{dataset_id}/rows?limit={limit}", cast_to=object)
    if as_json:
        print_json(page["data"])
        return
    headings = {"line": "Line", "part": "Part", "completion_id": "Completion", "model": "Model"}
    lines = [
        {**source, "line": row["line"], "said": " ".join(source["feedback_ids"])}
        for row in page["data"]
        for source in row["sources"]
    ]
    print_table(headings | {"said": "Feedback"}, lines, empty="It has no rows.")


@cli.command()
def cancel(
    dataset_id: DatasetId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Stop making a data set."""
    with open_client(url, key, data) as client:
        done: Any = client.post(f"/datasets/{dataset_id}/cancel", cast_to=object)
    tell(done, f"{done['id']} {done['status']}", as_json=as_json)


def _show(dataset: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    say(f"{dataset['id']} {dataset['status']}", "bold")
    if dataset["error"]:
        say(dataset["error"]["message"], "red")
    if (report := dataset["report"]) is not None:
        for name, value in _numbers(dataset, report):
            say(f"{name:16} {value}")


def _numbers(dataset: Mapping[str, Any], report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a person reads of a data set, as (name, value)."""
    left = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in report["left_out"].items())
    said = ", ".join(f"{kind} {n}" for kind, n in report["feedback"].items() if n)
    models = (
        f"{one['model']}{' of ' + one['job'] if one['job'] else ''} ({one['rows']} rows)"
        for one in report["models"]
    )
    found = [
        ("File", str(dataset["file_id"])),
        ("Rows", f"{report['rows']} of {report['completions']} completions"),
        ("Left out", left or "none"),
        ("Feedback", said or "none"),
        *(("Written by", model) for model in models),
        *(("Trains", f"{job['id']} ({job['status']})") for job in dataset["jobs"]),
        *(("Remark", remark) for remark in report["remarks"]),
    ]
    if report["conflicting_rows"]:
        found.append(("Conflicts", f"{report['conflicting_rows']} rows had a prompt with two answers"))
    return found
