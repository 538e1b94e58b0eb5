"""Shows a job to a person: its events as they come, and what there is to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli import following
from app.cli.output import console, print_json, when

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob


def as_sent(job: FineTuningJob) -> dict[str, Any]:
    """Returns the job as the service sent it. The client's types know no grader of ours, which needs no
    warning."""
    return job.to_dict(mode="json", warnings=False)


def watch(client: OpenAI, job_id: str, *, as_json: bool) -> FineTuningJob:
    """Prints each event of a job until it is over; returns it then."""
    job = client.fine_tuning.jobs.retrieve(job_id)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_plain = as_json or not console.is_terminal
    with Progress(*columns, console=console, disable=is_plain, transient=True) as progress:
        bar, reached = progress.add_task(job.status, total=None), 0
        for event in following.follow(client, job_id):
            if as_json:
                print_json(event.to_dict(mode="json", warnings=False))
                continue
            progress.console.print(f"{when(event.created_at)}  {event.message}", markup=False, soft_wrap=True)
            numbers: Any = event.data
            if isinstance(numbers, dict) and "step" in numbers:
                reached = max(reached, numbers["step"])  # seeds side by side tell theirs in any order
                progress.update(bar, completed=reached, total=numbers.get("total_steps"))
            elif not is_plain:  # the status may have changed
                job = client.fine_tuning.jobs.retrieve(job_id)
                progress.update(bar, description=job.status)
    return client.fine_tuning.jobs.retrieve(job_id)


def print_job(job: FineTuningJob) -> None:
    """Prints what a person wants to know of a job."""
    facts = {
        "ID": job.id,
        "Status": job.status,
        "Model": job.model,
        "Result": job.fine_tuned_model,
        "Training file": job.training_file,
        "Validation file": job.validation_file,
        "Created": when(job.created_at),
        "Finished": when(job.finished_at),
        "Verdict": (as_sent(job).get("verdict") or {}).get("sentence"),
        "Error": job.error.message if job.error and job.error.message else None,
    }
    for name, value in facts.items():
        if value:
            console.print(f"{name:16} {value}", markup=False, soft_wrap=True)
