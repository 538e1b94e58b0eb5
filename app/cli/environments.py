"""`cherry environments`: which environments jobs may name, and the rows that they bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.output import AsJson, print_json, print_table

cli = typer.Typer(help="Environments that the operator has installed.", no_args_is_help=True)


@cli.command("list")
def list_environments(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show the environments that jobs may name."""
    with open_client(url, key, data) as client:
        answered: Any = client.get("/fine_tuning/environments", cast_to=object)
    if as_json:
        print_json(answered)
        return
    headings = {"id": "Name", "description": "Description", "job_args": "Arguments of a job"}
    rows = [{**each, "job_args": ", ".join(each["job_args"])} for each in answered["data"]]
    print_table(
        headings, rows, empty="There are none: the operator installs them and sets CHERRY_ENVIRONMENTS."
    )


@cli.command()
def rows(
    name: Annotated[str, typer.Argument(help="Name of the environment.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: one row a line.")],
    args: Annotated[str, typer.Option("--args", help="Arguments as JSON, as a job gives them.")] = "{}",
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 50_000,
) -> None:
    """Write an environment's own data set as rows of a job. Runs where the environment is installed, with the
    settings of the worker."""
    command = [sys.executable, "-m", "workers.environments.named.rows", name, str(out), args, str(limit)]
    raise typer.Exit(subprocess.run(command).returncode)
