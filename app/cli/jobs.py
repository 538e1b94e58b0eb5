"""`cherry jobs`: fine-tuning jobs, through the API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import job_creation, job_end, preflights, regrades, seeds
from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.output import AsJson, CliError, console, print_json, print_table, when
from app.cli.shown import job_rows
from app.cli.watching import as_sent, print_job, watch

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

cli = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

cli.command()(job_creation.create)
cli.command()(preflights.check)
cli.command()(regrades.regrade)

JobId = Annotated[str, typer.Argument(help="ID of the job: ftjob-...")]


@cli.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show jobs, newest first, each with its last step and its newest reward, or loss.

    Validation counts before training. As JSON, `progress` has step, total_steps, reward and loss.
    """
    with open_client(url, key, data) as client:
        jobs = client.fine_tuning.jobs.list(limit=limit).data
        sent = job_rows.with_progress(client, [as_sent(job) for job in jobs])
    if as_json:
        print_json(sent)
        return
    shown = [{**job_rows.as_row(job), "created_at": when(job["created_at"])} for job in sent]
    print_table(job_rows.JOB, shown, empty="There are no jobs. `cherry jobs create` starts one.")


@cli.command()
def show(job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show one job."""
    with open_client(url, key, data) as client:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if as_json:
            print_json(as_sent(job))
        else:
            print_job(job)
            job_end.print_pause(client, job)
            seeds.print_seeds(client, as_sent(job))
            job_end.print_use(client, job)


@cli.command()
def follow(
    job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Watch a job until it is over; as JSON, a line for each event. Exit code 1 unless it succeeded."""
    with open_client(url, key, data) as client:
        job = watch(client, job_id, as_json=as_json)
        if not as_json:
            job_end.print_end(client, job)
    if job.status != "succeeded":
        raise typer.Exit(1)


@cli.command()
def checkpoints(
    job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Show the checkpoints that a job has kept, newest first. Each can be called and tuned by its name."""
    with open_client(url, key, data) as client:
        found = [
            kept.to_dict(mode="json", warnings=False)
            for kept in client.fine_tuning.jobs.checkpoints.list(job_id, limit=100)
        ]
    if as_json:
        print_json(found)
    else:
        print_table(
            job_end.CHECKPOINT,
            [job_end.as_row(one) for one in found],
            empty="The job has kept no checkpoints.",
        )


@cli.command()
def cancel(
    job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Cancel a job. A running one stops within seconds and keeps its checkpoints."""
    with open_client(url, key, data) as client:
        job = client.fine_tuning.jobs.cancel(job_id)
    _tell(job, "Cancelled." if job.status == "cancelled" else "Cancelling ...", as_json=as_json)


@cli.command()
def pause(
    job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Pause a job. A running one saves itself at its next step, leaves a checkpoint and frees its device."""
    with open_client(url, key, data) as client:
        job = client.fine_tuning.jobs.pause(job_id)
    _tell(job, "Pausing ..." if job.status == "running" else "Paused.", as_json=as_json)


@cli.command()
def resume(
    job_id: JobId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Let a paused job go on from where it was."""
    with open_client(url, key, data) as client:
        job = client.fine_tuning.jobs.resume(job_id)
    _tell(job, f"Resumed: the job is {job.status}.", as_json=as_json)


@cli.command()
def reproduce(
    job_id: JobId,
    grader: Annotated[
        Path | None, typer.Option(help="The grader as JSON, where its headers are secret and so not shown.")
    ] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Run a job again with the same files, model, seed and numbers, and compare. Exit code 1 unless it came
    out the same: bit for bit on the same processor, else with rewards within their interval."""
    from app.cards import reproduction

    try:
        with open_client(url, key, data) as client:
            job, first = client.fine_tuning.jobs.retrieve(job_id), _card(client, job_id)
            given = read_object(grader) if grader else None
            second = _run_again(client, reproduction.request_of(as_sent(job), first, given), as_json=as_json)
    except reproduction.CannotReproduce as problem:
        raise CliError(str(problem)) from None
    outcome = reproduction.compare(first, second)
    if as_json:
        print_json({**outcome._asdict(), "job": job_id, "reproduction": second["job"]["id"]})
    else:
        for line in (outcome.sentence, *outcome.details):
            console.print(line, markup=False, soft_wrap=True)
    if not outcome.reproduced:
        raise typer.Exit(1)


def _card(client: OpenAI, job_id: str) -> dict[str, Any]:
    """Returns what a job was made of and what became of it."""
    document: Any = client.get(f"/fine_tuning/jobs/{job_id}/card", cast_to=object)
    card: dict[str, Any] = document["card"]
    return card


def _run_again(client: OpenAI, body: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Starts a job and waits until it is over; returns its card."""
    made: Any = client.post("/fine_tuning/jobs", body=body, cast_to=object)
    if not as_json:
        console.print(f"Running it again as {made['id']}.", markup=False, soft_wrap=True)
    watch(client, made["id"], as_json=as_json)
    return _card(client, made["id"])


def _tell(job: FineTuningJob, outcome: str, *, as_json: bool) -> None:
    if as_json:
        print_json(as_sent(job))
    else:
        console.print(outcome)
