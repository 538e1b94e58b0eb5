"""`cherry projects`: projects, straight in the database."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

import typer

from app.cli.connect import Data, open_database
from app.cli.output import AsJson, CliError, console, errors, print_json, print_table, tell

cli = typer.Typer(help="Projects.", no_args_is_help=True)

POLL_SECONDS = 0.5
"""Between two looks at jobs that are being cancelled."""


@cli.command("list")
def list_projects(data: Data = None, as_json: AsJson = False) -> None:
    """Show projects, the archived ones too."""
    from sqlalchemy import select

    from app.tenants.models import Project

    with open_database(data) as db:
        found = db.scalars(select(Project).order_by(Project.created_at, Project.id))
        rows = [
            {"id": row.id, "name": row.name, "created_at": row.created_at, "archived_at": row.archived_at}
            for row in found
        ]
    if as_json:
        print_json(rows)
        return
    headings = {"id": "ID", "name": "Name", "created_at": "Created", "archived_at": "Archived"}
    seconds = [
        {**row, **{k: f"{v:%Y-%m-%d %H:%M:%S}" for k, v in row.items() if hasattr(v, "year")}} for row in rows
    ]
    print_table(headings, seconds, empty="There are no projects.")


@cli.command()
def erase(
    project_id: Annotated[str, typer.Argument(help="ID of the project: proj_...")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for jobs that are being cancelled.", min=0)
    ] = 120.0,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Remove a project for good: its rows, files, completions and weights. Its jobs are cancelled."""
    from app.erasures import project as erasure
    from app.errors import NotFound
    from app.settings import get_settings

    try:
        with open_database(data) as db:
            found = erasure.holdings(db, project_id)
    except NotFound:
        raise CliError(f"there is no project {project_id}: `cherry projects list` shows them") from None
    if not yes:
        shown = ", ".join(f"{table.replace('_', ' ')} {count}" for table, count in found.rows.items())
        errors.print(f"Project {project_id} ({found.name}) has: {shown}.", markup=False, soft_wrap=True)
        typer.confirm("Erase all of this? There is no way back", abort=True, err=True)
    _wait_until_over(project_id, wait, data)
    with open_database(data) as db:
        erased = erasure.erase(db, project_id)
    erasure.remove_bytes(erased, get_settings().data_dir)
    with open_database(data) as db:
        erasure.forget(db, erased)
    tell({"id": project_id, "erased": True, "rows": found.rows}, f"Erased {project_id}.", as_json=as_json)


@cli.command()
def retention(
    project_id: Annotated[str, typer.Argument(help="ID of the project: proj_...")],
    days: Annotated[float | None, typer.Option(help="Keep them so long from now on.")] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Keep them as CHERRY_COMPLETIONS_KEPT says.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show or set how long a project's stored completions and responses are kept.

    What is stored already goes no later than it was to go.
    """
    from app.erasures import service as erasures
    from app.settings import get_settings
    from app.tenants.models import Project

    if default and days is not None:
        raise CliError("give --days or --default, not both")
    with open_database(data) as db:
        project = db.get(Project, project_id)
        if project is None:
            raise CliError(f"there is no project {project_id}: `cherry projects list` shows them")
        otherwise = get_settings().completions_kept
        if default or days is not None:
            erasures.set_retention(db, project, None if days is None else _days(days), otherwise)
        own = project.completions_kept
    if as_json:
        seconds = None if own is None else own.total_seconds()
        print_json(
            {"id": project_id, "seconds": seconds, "effective_seconds": (own or otherwise).total_seconds()}
        )
    else:
        whose = "as the operator says" if own is None else "as it is set for the project"
        shown = f"{(own or otherwise) / timedelta(days=1):g} days"
        console.print(f"{project_id} keeps stored completions for {shown}, {whose}.", markup=False)


def _days(days: float) -> timedelta:
    """Returns a time to keep things. Raises `CliError` for one that is out of bounds."""
    from app.tenants.retention import LEAST, MOST

    if not LEAST <= timedelta(days=min(days, MOST.days + 1)) <= MOST:
        raise CliError(f"--days is from {LEAST / timedelta(days=1):.4f} to {MOST.days}")
    return timedelta(days=days)


def _wait_until_over(project_id: str, seconds: float, data: Data) -> None:
    """Closes the project and waits until its trainings have stopped. Raises `CliError` if they do not."""
    from app.erasures import project as erasure

    deadline = time.monotonic() + seconds
    while True:
        with open_database(data) as db:
            at_work = erasure.close(db, project_id)
        if not at_work:
            return
        if time.monotonic() > deadline:
            raise CliError(
                f"nothing was erased yet: {', '.join(at_work)} still runs and was told to stop; the project's"
                " keys are closed. Run the command again once it is over"
            )
        time.sleep(POLL_SECONDS)
