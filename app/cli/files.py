"""`cherry files`: data sets, through the API; `check` reads one here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.output import AsJson, CliError, console, print_json, print_table, when
from graders.template import Variable

if TYPE_CHECKING:
    from methods.rows import Row

cli = typer.Typer(help="Data files.", no_args_is_help=True)


class MethodName(StrEnum):
    """The methods of jobs."""

    SUPERVISED = "supervised"
    DPO = "dpo"
    REINFORCEMENT = "reinforcement"


PathArgument = Annotated[Path, typer.Argument(help="A JSONL file.")]


@cli.command()
def add(
    path: PathArgument, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Upload a data set."""
    with open_client(url, key, data) as client, path.open("rb") as file:
        added = client.files.create(file=file, purpose="fine-tune")
    if as_json:
        print_json(added.model_dump())
    else:
        console.print(added.id, markup=False)


@cli.command("list")
def list_files(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show files, newest first."""
    with open_client(url, key, data) as client:
        rows = [file.model_dump() for file in client.files.list()]
    if as_json:
        print_json(rows)
        return
    headings = {
        "id": "ID",
        "filename": "Name",
        "bytes": "Bytes",
        "purpose": "Purpose",
        "created_at": "Created",
    }
    shown = [{**row, "created_at": when(row["created_at"])} for row in rows]
    print_table(headings, shown, empty="There are no files.")


@cli.command()
def get(
    file_id: Annotated[str, typer.Argument(help="ID of the file: file-...")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where it goes.", show_default="standard output")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Download a file's content: data, or the results of a job."""
    if output is not None and output.exists() and not force:
        raise CliError(f"{output} is there already: give another -o, or --force")
    with open_client(url, key, data) as client:
        content = client.files.with_streaming_response.content(file_id)
        with content as response, _written(output) as file:
            for part in response.iter_bytes():
                file.write(part)


@contextmanager
def _written(path: Path | None) -> Iterator[IO[bytes]]:
    """Gives what is written to: standard output, or a file that is there once it is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise CliError(f"{path} is a folder: name the file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@cli.command()
def check(
    path: PathArgument,
    grader: Annotated[
        Path | None, typer.Option(help="A grader as JSON, whose fields every row must have.")
    ] = None,
    method: Annotated[MethodName, typer.Option(help="What the rows are for.")] = MethodName.REINFORCEMENT,
    as_json: AsJson = False,
) -> None:
    """Check a data set on this machine as a job would, and say what is wrong on which line."""
    from methods.rows import DatasetInvalid, missing_variables, read_rows
    from methods.tuning_rows import row_check, too_few

    rows: list[Row] = []
    lacks: list[str] = []
    faults: list[dict[str, Any]] = []
    try:
        rows = read_rows(path, check=row_check(method.value))
        lacks = list(missing_variables(rows, _variables(grader))) if grader else []
    except DatasetInvalid as invalid:
        lacks = str(invalid).splitlines()
        faults = [{"line": fault.line or None, "reason": fault.reason} for fault in invalid.faults]
    few = None if lacks else too_few(method.value, len(rows))
    if as_json:
        told = lacks or ([few] if few else [])
        print_json({"path": str(path), "rows": len(rows), "valid": not told, "told": told, "faults": faults})
        raise typer.Exit(1 if told else 0)
    if lacks:
        again = f"Mend them and check again: cherry files check {path}"
        raise CliError("\n".join([f"{path} is invalid:", *lacks, again]))
    if few:
        raise CliError(f"{path}: {few}. It may still be a validation file.")
    console.print(f"{path}: {len(rows)} rows, all good.", markup=False)


def _variables(path: Path) -> list[Variable]:
    from graders import GraderInvalid, parse_grader
    from graders.spec import item_paths

    try:
        spec = parse_grader(read_object(path))
    except GraderInvalid as fault:
        raise CliError(f"{path} is not a valid grader: {fault.told}") from None
    return [Variable.parse(name) for _, name in item_paths(spec)]
