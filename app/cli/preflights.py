"""`cherry jobs check`: what a job would meet, found out through the API before it is started."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.job_bodies import post_with_files
from app.cli.output import AsJson, console, print_json

if TYPE_CHECKING:
    from openai import OpenAI

OVER = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 1.0
STYLES = {"error": "red", "warn": "yellow", "info": ""}


def check(
    path: Annotated[Path, typer.Argument(metavar="JOB.json", help="The body of a job creation.")],
    training_file: Annotated[
        str | None, typer.Option(help="File here, by id, or a path to upload.", show_default="the job's")
    ] = None,
    validation_file: Annotated[
        str | None, typer.Option(help="The same for validation.", show_default="the job's")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=0, max=256, help="Prompts to sample; 0 for none.", show_default="32")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, max=64, help="Answers to each.", show_default="8")
    ] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Look at what a job would meet, without starting it: its files, its grader, and what its base answers.

    The exit code is 1 if the job would fail. Interrupting the command cancels the check.
    """
    body = read_object(path)
    given = {"training_file": training_file, "validation_file": validation_file}
    body |= {name: value for name, value in given.items() if value is not None}
    limits = {name: n for name, n in (("prompts", prompts), ("samples", samples)) if n is not None}
    if limits:
        body["preflight"] = {**(body.get("preflight") or {}), **limits}
    with open_client(url, key, data) as client:
        made: Any = post_with_files(client, "/fine_tuning/jobs/preflight", body)
        at = f"/fine_tuning/preflights/{made['id']}"
        done = wait_until_over(client, at, made, as_json=as_json)
    if as_json:
        print_json(done)
    else:
        _print(done)
    if done["status"] != "succeeded" or any(f["severity"] == "error" for f in done["report"]["findings"]):
        raise typer.Exit(1)


def wait_until_over(client: OpenAI, at: str, work: Any, *, as_json: bool) -> Any:
    """Returns a preflight or a data set once it is over, and shows meanwhile what is being done.

    Interrupted, it cancels it.
    """
    try:
        with console.status(work["status"]) as shown:
            while work["status"] not in OVER:
                time.sleep(POLL_SECONDS)
                work = client.get(at, cast_to=object)
                if not as_json:
                    shown.update(_doing(work))
    except KeyboardInterrupt:
        client.post(f"{at}/cancel", cast_to=object)
        raise
    return work


def _doing(work: Mapping[str, Any]) -> str:
    progress = work["progress"]
    if not progress:
        return str(work["status"])
    of = f" {progress['done']} of {progress['total']}" if progress["total"] else ""
    return f"{progress['phase']}{of}"


def _print(preflight: Mapping[str, Any]) -> None:
    if preflight["error"]:
        say(f"The check {preflight['status']}: {preflight['error']['message']}", "red")
    elif preflight["status"] == "cancelled":
        say("The check was cancelled.")
    report = preflight["report"]
    if report is None:
        return
    for name, value in _numbers(report):
        say(f"{name:24} {value}")
    for finding in report["findings"]:
        say(f"{finding['severity']}: {finding['message']}", STYLES[finding["severity"]])
    say(report["verdict"], "bold")


def say(text: str, style: str = "") -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True, style=style)


def _numbers(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the numbers of a report that a person reads, as (name, value)."""
    files, lengths = report["files"], report.get("lengths")
    base, job, gain = report.get("base"), report.get("job"), report.get("gain")
    rows = (_rows_of(name, files[f"{name}_rows"]) for name in ("training", "validation"))
    found = [("Rows", ", ".join(rows))]
    if lengths:
        tokens = lengths["prompt_tokens"]
        said = f"{tokens['p50']} (half), {tokens['p95']} (95 %), {tokens['max']} (longest)"
        found.append(("Prompt tokens", f"{said} of {lengths['context']}"))
    if base:
        found.append(("Answers sampled", f"{base['samples']} to each of {base['prompts']} prompts"))
        if base["mean_reward"] is not None:
            found.append(("Mean reward", f"{base['mean_reward']:.3g}"))
        if base["never"] is not None:
            shares = (f"{name} {base[name]:.0%}" for name in ("never", "sometimes", "always"))
            found.append(("Right", ", ".join(shares)))
        found.append(("Cut, not readable", f"{base['truncated']:.0%}, {base['parse_failed']:.0%}"))
        found.append(("Expected signal", f"{base['expected_signal']:.0%} of the groups"))
    if lengths and "suggested_max_completion_tokens" in lengths:
        asked, better = lengths["max_completion_tokens"], lengths["suggested_max_completion_tokens"]
        found.append(("Completion tokens", f"{asked} at most; {better} are suggested"))
    if job:
        low, high = job["seconds_low"], job["seconds_high"]
        found.append(("Steps", f"{job['steps']}, {job['sampled_tokens']:,} tokens sampled"))
        found.append(("Time, roughly", f"{low:,.0f} to {high:,.0f} s on a {job['device']} like this one"))
    if judging := report.get("judging"):
        found.append(("Judging", judging["sentence"]))
    if gain:
        smallest = gain["smallest_gain"]
        shown = "none" if smallest is None else f"{smallest:.2g}"
        found.append(("Smallest gain shown", f"{shown}, by {gain['rows']} rows x {gain['samples']} answers"))
    return found


def _rows_of(name: str, rows: int | None) -> str:
    """Returns how many rows a file has; of one that cannot be read that is not known."""
    return f"{name} file not readable" if rows is None else f"{rows} {name}"
