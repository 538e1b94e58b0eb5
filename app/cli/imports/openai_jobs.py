"""`cherry import openai-jobs`: jobs as they were written for OpenAI or Azure, made to run here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.imports.export_folder import ExportFolder
from app.cli.imports.openai_job import Imported, import_job
from app.cli.job_bodies import FILES, Uploads, post_with_files
from app.cli.output import AsJson, CliError, console, errors, print_json, print_table, when

if TYPE_CHECKING:
    from openai import OpenAI

MARK = "openai_job"
"""Metadata of a job that was imported: the id that it had at OpenAI, by which it is not started twice."""
MOST_METADATA = 16
"""Pairs of metadata that a job may have (reference, section 4.1)."""
HEADINGS = {"id": "ID", "created": "Created", "status": "Status", "method": "Method", "model": "Model"}
HEADINGS |= {"result": "Result", "lacks": "Cannot be started"}
MADE = {"openai_job": "At OpenAI", "job": "Here", "status": "Status", "problem": "Problem"}


class Started(NamedTuple):
    """What has become of a job of the export."""

    openai_job: str
    job: str | None
    status: str | None
    problem: str | None = None


def openai_jobs(
    path: Annotated[Path, typer.Argument(metavar="EXPORT|JOB.json", help="An export, or one job as JSON.")],
    job: Annotated[list[str] | None, typer.Option(help="A job of the export, by its id there.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All jobs of the export.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Model to train here.", show_default="the job's, or its alias")
    ] = None,
    training_file: Annotated[
        str | None, typer.Option(help="File here, by id, or a path to upload.", show_default="the job's")
    ] = None,
    validation_file: Annotated[
        str | None, typer.Option(help="The same for validation.", show_default="the job's")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Start them.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Read jobs made for OpenAI or Azure, and print them, or start them, as jobs of this service.

    EXPORT is a folder that scripts/export_openai.py has made; the files of its jobs are uploaded out of it. A
    job of an export is started once: run again, the command goes on with those that are not here yet.
    """
    options = {"model": model, "training_file": training_file, "validation_file": validation_file}
    given = {name: value for name, value in options.items() if value is not None}
    if not path.is_dir():
        body = _told(import_job(read_object(path)), given)
        if create:
            with open_client(url, key, data) as client:
                _print_started(post_with_files(client, "/fine_tuning/jobs", body), as_json)
        else:
            _print_request(body)
        return
    export = ExportFolder(path)
    chosen = _chosen(export, job or [], every=every or not create)
    if create:
        with open_client(url, key, data) as client:
            done = _start_all(client, export, chosen, given)
        _print_done(done, as_json)
        if any(one.problem for one in done):
            raise typer.Exit(1)
    elif job and len(job) == 1 and not as_json:
        found, _ = _request(export, chosen[0])
        _print_request(_told(found, given))
    else:
        _print_jobs(export, chosen, as_json)


def _chosen(export: ExportFolder, names: Sequence[str], *, every: bool) -> list[dict[str, Any]]:
    """Returns the jobs of the export that are meant, the oldest first."""
    for name in export.unfinished():
        errors.print(f"{name} is not whole: run the exporter again", markup=False, soft_wrap=True)
    jobs = export.jobs()[::-1]  # the exporter has the newest first
    jobs.sort(key=lambda one: one.get("created_at") or 0)
    if names:
        by_id = {one["id"]: one for one in jobs}
        if unknown := [name for name in names if name not in by_id]:
            raise CliError(f"{export.path} has no job {', '.join(unknown)}")
        return [by_id[name] for name in names]
    if not every:
        raise CliError("say which jobs to start: --job ID, as often as needed, or --all")
    return jobs


def _request(export: ExportFolder, job: Mapping[str, Any]) -> tuple[Imported, list[str]]:
    """Returns the request for a job of the export, with paths for its files; and the files that it lacks.

    Raises `CliError`.
    """
    found, lacks = import_job(job), list[str]()
    for name in FILES:
        if file_id := found.body.get(name):
            content = export.content(file_id)
            found.body[name] = str(content) if content else file_id
            lacks += [] if content else [name]
    metadata = found.body.get("metadata") or {}
    if MARK in metadata or len(metadata) < MOST_METADATA:
        found.body["metadata"] = {**metadata, MARK: job["id"]}
    else:
        found.notes.append(f"{job['id']} has no room for '{MARK}' in its metadata: it would be started again")
    return found, lacks


def _told(found: Imported, given: Mapping[str, str]) -> dict[str, Any]:
    """Returns the request with what the command line says in its place; tells what was left out of it."""
    for note in found.notes:
        errors.print(note, markup=False, soft_wrap=True)
    return {**found.body, **given}


def _start_all(
    client: OpenAI, export: ExportFolder, jobs: Sequence[Mapping[str, Any]], given: Mapping[str, str]
) -> list[Started]:
    """Starts the jobs that are not here yet. One that cannot be started holds up no other."""
    from openai import APIStatusError

    names = {str(export.content(file)): export.file_name(file) for file in _files_of(jobs)}
    uploads = Uploads(names)
    done = []
    for job in jobs:
        try:
            done.append(_start(client, export, job, given, uploads))
        except CliError as problem:
            done.append(Started(job["id"], None, None, str(problem)))
        except APIStatusError as fault:
            body = fault.body if isinstance(fault.body, dict) else {}
            done.append(Started(job["id"], None, None, str(body.get("message") or fault.message)))
    return done


def _start(
    client: OpenAI,
    export: ExportFolder,
    job: Mapping[str, Any],
    given: Mapping[str, str],
    uploads: Uploads,
) -> Started:
    there = client.fine_tuning.jobs.list(metadata={MARK: job["id"]}, limit=1).data
    if there:
        return Started(job["id"], there[0].id, there[0].status)
    found, lacks = _request(export, job)
    if missing := [name for name in lacks if name not in given]:
        which = ", ".join(f"{name} {job[name]}" for name in missing)
        raise CliError(f"the export lacks {which}: name another with --{missing[0].replace('_', '-')}")
    made = post_with_files(client, "/fine_tuning/jobs", _told(found, given), uploads)
    return Started(job["id"], made["id"], made["status"])


def _files_of(jobs: Sequence[Mapping[str, Any]]) -> set[str]:
    return {job[name] for job in jobs for name in FILES if job.get(name)}


def _print_request(body: Mapping[str, Any]) -> None:
    print(json.dumps(body, indent=2, ensure_ascii=False))


def _print_started(job: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        console.print(f"{job['id']}  {job['status']}  {job['model']}", markup=False, soft_wrap=True)


def _print_done(done: Sequence[Started], as_json: bool) -> None:
    rows = [one._asdict() for one in done]
    if as_json:
        print_json(rows)
    else:
        print_table(MADE, rows, empty="The export has no jobs.")


def _print_jobs(export: ExportFolder, jobs: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    rows = [_row(export, job) for job in jobs]
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "created": when(row["created"])} for row in rows]
    print_table(HEADINGS, shown, empty="The export has no jobs.")


def _row(export: ExportFolder, job: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found, missing = _request(export, job)
        request, lacks = found.body, ", ".join(f"no {name}" for name in missing)
    except CliError as problem:
        request, lacks = {}, str(problem)
    method = job.get("method") or {}
    return {
        "id": job["id"],
        "created": job.get("created_at"),
        "status": job.get("status"),
        "method": method.get("type", "supervised"),
        "model": job.get("model"),
        "result": job.get("fine_tuned_model"),
        "lacks": lacks or None,
        "request": request or None,
    }
