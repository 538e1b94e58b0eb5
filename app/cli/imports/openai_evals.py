"""`cherry import openai-evals`: evals with their runs and output items, straight into the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from app.cli.connect import Data, open_database
from app.cli.imports.export_folder import ExportFolder
from app.cli.output import AsJson, CliError, errors, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

HEADINGS = {"eval": "Eval", "name": "Name", "runs": "Runs", "items": "Items", "there": "Runs here before"}
HEADINGS |= {"problems": "Problems"}


class Kept(NamedTuple):
    """What has become of an eval of the export."""

    eval: str
    name: str
    runs: int
    items: int
    there: int
    problems: list[str]


def openai_evals(
    path: Annotated[Path, typer.Argument(metavar="EXPORT", help="A folder of scripts/export_openai.py.")],
    one: Annotated[list[str] | None, typer.Option("--eval", help="An eval, by its id; else all.")] = None,
    project: Annotated[
        str | None, typer.Option(help="ID of the project that gets them.", show_default="the first")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take over evals that ran at OpenAI, with their runs and every output item, under their old ids.

    Run again, the command adds what is not here yet.
    """
    export = ExportFolder(path)
    for name in export.unfinished():
        errors.print(f"{name} is not whole: run the exporter again", markup=False, soft_wrap=True)
    evals = {exported["id"]: exported for exported in export.evals()}
    if unknown := [name for name in one or () if name not in evals]:
        raise CliError(f"{path} has no eval {', '.join(unknown)}")
    with open_database(data) as db:
        project_id = _project(db, project)
    kept = [_keep(export, evals[name], project_id, data) for name in one or evals]
    rows = [each._asdict() for each in kept]
    if as_json:
        print_json(rows)
    else:
        shown = [{**row, "problems": "\n".join(row["problems"])} for row in rows]
        print_table(HEADINGS, shown, empty="The export has no evals.")
    if any(each.problems for each in kept):
        raise typer.Exit(1)


def _project(db: Session, asked: str | None) -> str:
    from app.tenants import service as tenants
    from app.tenants.models import Project

    if asked is None:
        return tenants.ensure_default_tenant(db).id
    if db.get(Project, asked) is None:
        raise CliError(f"there is no project {asked}: `cherry projects list` shows them")
    return asked


def _keep(export: ExportFolder, exported: Mapping[str, Any], project_id: str, data: Path | None) -> Kept:
    """Writes an eval, and each of its runs in a transaction of its own."""
    from app.evals import imported

    problems = [f"cannot be run here, {fault}" for fault in imported.unusable_criteria(exported)]
    runs = items = there = 0
    for run in _all_or_none(export, exported, project_id, data, problems):
        try:
            with open_database(data) as db:
                of, _ = imported.keep_eval(db, project_id, exported)
                found = imported.keep_run(db, of, run, export.items(exported["id"], run["id"]))
        except imported.NotKept as fault:
            problems.append(f"{run['id']}: {fault}")
            continue
        runs, there = runs + (found is not None), there + (found is None)
        items += found or 0
        n_wanted = (run.get("result_counts") or {}).get("total") or 0
        if found is not None and found < n_wanted:
            problems.append(f"{run['id']}: the export has {found} of its {n_wanted} items")
    return Kept(exported["id"], exported.get("name") or "", runs, items, there, problems)


def _all_or_none(
    export: ExportFolder,
    exported: Mapping[str, Any],
    project_id: str,
    data: Path | None,
    problems: list[str],
) -> Iterator[dict[str, Any]]:
    """Yields the runs of an eval, once that is written; none if it cannot be kept."""
    from app.evals import imported

    try:
        with open_database(data) as db:
            imported.keep_eval(db, project_id, exported)
    except imported.NotKept as fault:
        problems.append(str(fault))
        return
    yield from export.runs(exported["id"])
