"""`cherry graders sheet`: answers for people to score, out of a data file or out of what a job wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.given_graders import build_here
from app.cli.output import AsJson, CliError, tell

if TYPE_CHECKING:
    from openai import OpenAI

    from methods.labels.sheets import Entry
    from methods.rows import Row

PAGE = 100
MOST_ROLLOUTS = 5000
"""Completions of a job that are looked at, the first of those asked for. Chosen, not measured."""


def sheet(
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    data: Annotated[Path | None, typer.Option(help="Rows with answers (JSONL).")] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="The rows' key that holds the answer to score.", show_default="sample, else answer"
        ),
    ] = None,
    job: Annotated[str | None, typer.Option(help="A job whose completions are scored.")] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Of the job, only this step.")] = None,
    grader: Annotated[
        Path | None, typer.Option(help="A grader over whose scores the answers of --data are spread.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Most answers.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the order, and of which answers are taken.")] = 0,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a sheet for people to score answers on, blind to what a grader says of them.

    It has the columns id, prompt, answer and score, which is empty. The rows lie in a file beside it, which
    `cherry graders check --labels` needs when the sheet comes back. A job's answers are spread over its
    rewards.
    """
    from methods.labels.reading import rows_beside
    from methods.labels.sheets import chosen, write_sheet

    if (data is None) == (job is None):
        raise CliError("say whose answers: --data FILE or --job ID")
    if out.suffix.lower() != ".csv":
        raise CliError(f"{out} must end in .csv: the sheet is read back by that")
    if data is not None:
        entries = _of_file(data, answer, grader)
    else:
        with open_client(url, key, None) as client:
            entries = list(_of_job(client, str(job), step))
    if not entries:
        raise CliError("there are no answers to score")
    taken = chosen(entries, n, seed)
    write_sheet(out, taken)
    said = f"Wrote {len(taken)} of {len(entries)} answers to {out}; keep {rows_beside(out)} beside it."
    values = {"sheet": str(out), "rows": str(rows_beside(out)), "answers": len(taken), "of": len(entries)}
    tell(values, said, as_json=as_json)


def _of_file(path: Path, answer: str | None, grader: Path | None) -> list[Entry]:
    """Returns the answers in a data file, with a grader's scores if there is one, and without those that
    people gave them before. Raises `CliError`."""
    from methods.labels.reading import SCORE
    from methods.labels.sheets import Entry

    entries = []
    for row in _rows(path):
        key = answer or ("sample" if "sample" in row.item else "answer")
        if not isinstance(text := row.item.get(key), str):
            raise CliError(f"{path}, line {row.line}: '{key}' holds no text (give its key with --answer)")
        shown = {name: value for name, value in row.item.items() if name not in (key, SCORE)}
        entries.append(Entry(shown, text))
    return entries if grader is None else _scored(entries, grader)


def _scored(entries: list[Entry], path: Path) -> list[Entry]:
    """Returns the same with what a grader gives them; None of those that it cannot grade."""
    from app.grading.limits import grade_limits
    from app.settings import get_settings
    from graders.calibration.asking import Asker, Bench, Bounds
    from graders.calibration.cases import Case

    spec, built = build_here(read_object(path), path)
    bounds = Bounds(concurrency=grade_limits(spec, get_settings()).concurrency)
    cases = [Case(line, entry.item, entry.answer) for line, entry in enumerate(entries, start=1)]
    grades = Bench(Asker(None, bounds), built, cases).as_they_are(range(len(cases)))
    return [
        entry._replace(score=found[0].reward if found else None)
        for entry, found in zip(entries, grades, strict=True)
    ]


def _of_job(client: OpenAI, job_id: str, step: int | None) -> Iterator[Entry]:
    """Yields the answers that a job wrote to its training rows, with their rewards."""
    from methods.labels.sheets import Entry

    job = client.fine_tuning.jobs.retrieve(job_id)
    rows = _rows_of(client, job.training_file)
    for rollout in _rollouts(client, job_id, step):
        message = rollout.get("message") or {}
        text = message.get("content") if message else rollout["text"]
        if isinstance(text, str) and rollout["row"] < len(rows):
            yield Entry(rows[rollout["row"]].item, text, rollout["reward"])


def _rollouts(client: OpenAI, job_id: str, step: int | None) -> Iterator[dict[str, Any]]:
    asked: dict[str, Any] = {"limit": PAGE} if step is None else {"limit": PAGE, "step": step}
    seen = 0
    while seen < MOST_ROLLOUTS:
        page: Any = client.get(
            f"/fine_tuning/jobs/{job_id}/rollouts", cast_to=object, options={"params": asked}
        )
        yield from page["data"]
        seen += len(page["data"])
        if not page["has_more"]:
            return
        asked["after"] = page["data"][-1]["id"]


def _rows_of(client: OpenAI, file_id: str) -> list[Row]:
    """Returns the rows of a file at the service."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(client.files.content(file_id).read())
        return _rows(path)


def _rows(path: Path) -> list[Row]:
    from methods.rows import DatasetInvalid, check_object, read_rows

    try:
        return list(read_rows(path, check=check_object))
    except DatasetInvalid as invalid:
        raise CliError(f"{path} is invalid:\n{invalid}") from None
