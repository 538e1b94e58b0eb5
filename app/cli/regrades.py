"""`cherry jobs regrade`: a job's completions, graded by another grader and compared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.given_files import read_object
from app.cli.output import AsJson, console, print_json, print_table

if TYPE_CHECKING:
    from openai import OpenAI

OVER = ("succeeded", "failed", "cancelled")
POLL_SECONDS = 1.0
SHOWN = 10
"""Completions that are printed, those first in which the graders differ most."""
SHORT = 60
"""Characters of a completion that are printed."""
PASSES = {
    "both": "both pass",
    "before_only": "only before",
    "after_only": "only now",
    "neither": "none passes",
}
NUMBERS = {
    "agreement": "Agreement",
    "kappa": "Kappa",
    "rank_correlation": "Rank correlation",
    "mean_difference": "Mean difference",
}
COLUMNS = {"completion": "Completion", "before": "Before", "after": "Now", "text": "Text"}


def regrade(
    job_id: Annotated[str, typer.Argument(help="ID of the job: ftjob-...")],
    grader: Annotated[Path, typer.Argument(metavar="GRADER.json", help="The new grader.")],
    split: Annotated[
        str | None, typer.Option(help="train, valid, fresh, greedy or control; else all but control.")
    ] = None,
    first_step: Annotated[int | None, typer.Option(min=0, help="Steps from this one on.")] = None,
    last_step: Annotated[int | None, typer.Option(min=0, help="Steps up to this one.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A grader to compare with, in place of the stored rewards.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end; --no-wait prints the id.")] = True,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Grade a job's stored completions with another grader, and show where the two differ.

    Interrupting the command cancels the regrade. Exit code 1 unless it succeeded.
    """
    body = {"grader": read_object(grader), "split": split, "first_step": first_step, "last_step": last_step}
    body |= {"baseline": read_object(baseline)} if baseline else {}
    with open_client(url, key, data) as client:
        made: Any = client.post(f"/fine_tuning/jobs/{job_id}/regrade", body=body, cast_to=object)
        done = _wait(client, made) if wait else made
        if as_json:
            print_json(done)
        elif not wait:
            console.print(done["id"], markup=False)
        else:
            _print(client, done)
    if wait and done["status"] != "succeeded":
        raise typer.Exit(1)


def _wait(client: OpenAI, regrade: Any) -> Any:
    """Returns the regrade once it is over, and shows meanwhile how far it is."""
    at = f"/regrades/{regrade['id']}"
    try:
        with console.status(regrade["status"]) as shown:
            while regrade["status"] not in OVER:
                time.sleep(POLL_SECONDS)
                regrade = client.get(at, cast_to=object)
                progress = regrade["progress"]
                shown.update(f"{progress['done']} of {progress['total']}")
    except KeyboardInterrupt:
        client.post(f"{at}/cancel", cast_to=object)
        raise
    return regrade


def _print(client: OpenAI, regrade: Mapping[str, Any]) -> None:
    if regrade["status"] != "succeeded":
        reason = f": {regrade['error']['message']}" if regrade["error"] else ""
        _say(f"The regrade {regrade['id']} has {regrade['status']}{reason}")
        return
    for name, value in _lines(regrade["comparison"]):
        _say(f"{name:20} {value}")
    at = f"/regrades/{regrade['id']}/results?order=difference&limit={SHOWN}"
    found: Any = client.get(at, cast_to=object)
    rows = [_row(one) for one in found["data"] if one["difference"]]
    print_table(COLUMNS, rows, empty="The graders differ about no completion.")
    _say(f"All of them: GET /v1/regrades/{regrade['id']}/results")


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what a person reads of a comparison, as (name, value)."""
    yield "Completions", f"{told['completions']}, {told['compared']} of them with both rewards"
    for name, side in (("Before", told["before"]), ("Now", told["after"])):
        if side and side["graded"]:
            passes = f"{side['passed']} pass (from {side['passes_from']:.3g})"
            yield name, f"mean reward {side['mean_reward']:.3g}, {passes}"
    if "passes" not in told:
        return
    yield "Pass or not", ", ".join(f"{words} {told['passes'][name]}" for name, words in PASSES.items())
    for name, words in NUMBERS.items():
        yield words, _estimate(told[name])


def _estimate(told: Mapping[str, float | None]) -> str:
    if told["value"] is None:
        return "not defined: one grader gives all the same"
    interval = "" if told["low"] is None else f" ({told['low']:.3f} to {told['high']:.3f})"
    return f"{told['value']:.3f}{interval}"


def _row(result: Mapping[str, Any]) -> dict[str, str]:
    text = " ".join((result["text"] or "").split())
    rewards = {
        name: f"{result[name]['reward']:.3g}"
        if result[name]["reward"] is not None
        else result[name]["failure"]
        for name in ("before", "after")
    }
    return {"completion": result["completion"], **rewards, "text": text[:SHORT]}


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
