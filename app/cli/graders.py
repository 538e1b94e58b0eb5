"""`cherry graders`: try graders out, through the API or here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import parse_object, read_object, read_text
from app.cli.given_graders import build_here
from app.cli.judging.checking import LABELS_SECONDS, Limits, check_labels, try_judges
from app.cli.judging.sheets import sheet
from app.cli.output import AsJson, CliError, console, print_json, print_table

if TYPE_CHECKING:
    from graders.preflight.trial import Report
    from graders.template import Variable
    from methods.rows import Row

cli = typer.Typer(help="Graders.", no_args_is_help=True)
cli.command()(sheet)

TRIAL_SECONDS = 60.0
"""After this a trial begins nothing more, where nobody says otherwise."""

SHOWN_ANSWER = 60
"""Characters of an answer that are shown above its grade. Chosen, not measured: what fits in a line."""
GraderFile = Annotated[Path, typer.Argument(metavar="GRADER.json", help="The grader as JSON.")]
Local = Annotated[bool, typer.Option("--local", help="Here, without a service.")]


@cli.command()
def validate(
    path: GraderFile,
    local: Local = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Check a grader as a job would, and show it as it is understood."""
    raw = read_object(path)
    if local:
        from graders import dump_grader

        understood = dump_grader(build_here(raw, path)[0])
    else:
        with open_client(url, key, data) as client:
            reply = client.fine_tuning.alpha.graders.validate(grader=raw)  # type: ignore[arg-type]
        understood = reply.to_dict(mode="json", warnings=False)["grader"]  # type: ignore[assignment]
    if as_json:
        print_json(understood)
    else:
        console.print_json(json.dumps(understood))


@cli.command()
def run(
    path: GraderFile,
    sample: Annotated[
        list[str] | None, typer.Option(help="The answer to grade; several for a grader that compares them.")
    ] = None,
    sample_file: Annotated[list[Path] | None, typer.Option(help="The same, from a file.")] = None,
    item: Annotated[str | None, typer.Option(help="The dataset row, as JSON.")] = None,
    rows: Annotated[Path | None, typer.Option(help="A data set to take the row from.")] = None,
    line: Annotated[
        int | None, typer.Option(min=1, help="Which of its rows, from 1.", show_default="the first")
    ] = None,
    row: Annotated[int, typer.Option(min=0, help="The same, from 0.", hidden=True)] = 0,
    local: Local = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Grade one answer, or several to the same row. The exit code is 1 if anything in the grading failed."""
    raw, answers, of_row = (
        read_object(path),
        _answers(sample, sample_file),
        _row(item, rows, row if line is None else line - 1),
    )
    given = answers[0] if len(answers) == 1 else answers
    if local:
        result = _run_here(raw, path, answers, of_row)
    else:
        with open_client(url, key, data) as client:
            reply = client.fine_tuning.alpha.graders.run(
                grader=raw,  # type: ignore[arg-type]
                model_sample=given,  # type: ignore[arg-type]
                item=of_row,
            )
        result = reply.to_dict(mode="json", warnings=False)
    results = result.get("results") or [result]
    if as_json:
        print_json(result)
    else:
        _print_runs(answers, results)
    if any(value is True for one in results for value in one["metadata"]["errors"].values()):
        raise typer.Exit(1)


@cli.command()
def check(
    path: GraderFile,
    data: Annotated[
        Path | None, typer.Option(help="A data set to try it on.", show_default="made-up rows")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The row's key that holds its right answer, such as `answer` or `item.gold.text`.",
            show_default="as the grader's templates tell",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Answers that people have scored (JSONL or CSV): compare with them.")
    ] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="The least and the largest score of people.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most rows to try; without --labels.")] = 8,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Begin nothing after this long.", show_default="60; 300 with --labels"),
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Most calls of judges, with --labels.")] = 500,
    as_json: AsJson = False,
) -> None:
    """Try a grader on answers whose worth is known, and say what is wrong with it.

    The right answer should get the most; empty, hostile and copied answers should not. The exit code is 1 if
    there are warnings. With --labels it is compared with people, and with itself, and tried with tricks; the
    exit code is then 1 unless it is fit to train against.
    """
    if labels is not None:
        if data is not None or reference is not None:
            raise CliError("--labels has the rows and the answers: leave out --data and --reference")
        limits = Limits(LABELS_SECONDS if seconds is None else seconds, calls, scale)
        if not check_labels(path, labels, limits, as_json=as_json):
            raise typer.Exit(1)
        return
    from graders.preflight.example_rows import example_rows
    from graders.preflight.trial import Bounds, preflight

    spec, grader = build_here(read_object(path), path)
    found = _read_rows(data) if data is not None else None
    items = [dict(row.item) for row in found] if found is not None else example_rows(spec)
    lines = [row.line for row in found] if found is not None else None
    at = _reference_path(reference, items) if reference is not None else None
    bounds = Bounds(rows=rows, seconds=TRIAL_SECONDS if seconds is None else seconds)
    report = preflight(spec, grader, items, reference=at, bounds=bounds, lines=lines)
    if not as_json:
        _print_report(report)
    judged = try_judges(spec, path, items, list(lines or range(1, len(items) + 1)), as_json=as_json)
    if as_json:
        print_json({**report.as_dict(), **({} if judged is None else {"judge": judged.told})})
    if report.warnings or (judged is not None and judged.remarks):
        raise typer.Exit(1)


def _run_here(raw: dict[str, Any], path: Path, answers: list[str], of_row: dict[str, Any]) -> dict[str, Any]:
    from app.grading.schemas import GraderRunOut
    from graders import Sample
    from graders.grading import grade_group_safely
    from graders.spec import is_of_groups

    spec, grader = build_here(raw, path)
    if len(answers) == 1 and is_of_groups(spec):
        raise CliError("a rank grader compares answers: give it several, each with --sample or --sample-file")
    grades = grade_group_safely(grader, [Sample(output_text=answer) for answer in answers], of_row)
    told = GraderRunOut.of(spec, grades[0]) if len(grades) == 1 else GraderRunOut.of_several(spec, grades)
    return told.model_dump(mode="json")


def _print_runs(answers: list[str], results: list[dict[str, Any]]) -> None:
    """Shows how each answer was graded, under its beginning where there are several."""
    if len(results) == 1:
        _print_run(results[0])
        return
    for number, (answer, result) in enumerate(zip(answers, results, strict=True), start=1):
        shown = " ".join(answer.split())[:SHOWN_ANSWER]
        console.print(f"{number}. {shown}", markup=False, soft_wrap=True)
        _print_run(result)


def _print_run(result: dict[str, Any]) -> None:
    errors, metadata = result["metadata"]["errors"], result["metadata"]
    failed = [flag for flag, value in errors.items() if value is True]
    said = {"Reward": f"{result['reward']:.4g}" + (" (with errors)" if failed else "")}
    for flag in failed:
        said[flag] = errors.get(f"{flag}_details") or ""
    said |= {name: f"{value:.4g}" for name, value in metadata["scores"].items()}
    if result.get("reason"):
        said["Reason"] = result["reason"]
    for model, usage in result["model_grader_token_usage_per_model"].items():
        said[f"Tokens of {model}"] = str(usage["total_tokens"])
    said["Seconds"] = f"{metadata['execution_time']:.3f}"
    width = max(map(len, said)) + 2
    for name, value in said.items():
        console.print(f"{name:{width}}{value}", markup=False, soft_wrap=True)


def _reference_path(name: str, items: list[dict[str, Any]]) -> Variable:
    """Returns the place where a row holds its right answer. Raises `CliError` if none does."""
    from graders import GraderInvalid
    from graders.template import Variable

    try:
        path = Variable.parse(name if name.startswith("item.") else f"item.{name}")
    except GraderInvalid as fault:
        raise CliError(f"--reference: {fault.message}") from None
    if not any(path.is_in(item) for item in items):
        raise CliError(f"--reference: no row has '{path}'")
    return path


def _print_report(report: Report) -> None:
    rows = [
        {
            "line": trial.line,
            "probe": trial.probe,
            "value": f"{trial.value:.4g}" if trial.value is not None else "",
            "failure": trial.failure.kind.value if trial.failure else "",
        }
        for trial in sorted(report.trials, key=lambda trial: trial.line)
    ]
    headings = {"line": "Line", "probe": "Answer", "value": "Reward", "failure": "Failure"}
    print_table(headings, rows, empty="Nothing was tried.")
    for finding in report.findings:
        style = "yellow" if finding.level == "warn" else ""
        console.print(f"{finding.level}: {finding.message}", markup=False, soft_wrap=True, style=style)
    if report.skipped:
        console.print(f"{report.skipped} more were not tried: the time was over, or the grader out of order.")
    if not report.findings:
        console.print("Nothing wrong was found.")


def _answers(samples: list[str] | None, files: list[Path] | None) -> list[str]:
    """Returns the answers to grade. Raises `CliError` if there is none, or both kinds are."""
    if bool(samples) == bool(files):
        raise CliError("give the answer to grade with either --sample or --sample-file")
    return list(samples or map(read_text, files or ()))


def _row(item: str | None, rows: Path | None, number: int) -> dict[str, Any]:
    """Returns the dataset row that was named, or an empty one if none was."""
    if item is not None and rows is not None:
        raise CliError("give the row with either --item or --rows")
    if rows is not None:
        found = _read_rows(rows)
        if number >= len(found):
            raise CliError(f"{rows} has {len(found)} rows, so there is no line {number + 1}")
        return dict(found[number].item)
    return parse_object(item, "--item") if item is not None else {}


def _read_rows(path: Path) -> list[Row]:
    """Reads the rows of a data set. Raises `CliError`."""
    from methods.rows import DatasetInvalid, read_rows

    try:
        return list(read_rows(path))
    except DatasetInvalid as invalid:
        raise CliError(f"{path} is invalid:\n{invalid}") from None
