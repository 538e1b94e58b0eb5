"""The commands of `cherry evals`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.evals import comparison, shown
from app.cli.given_files import read_object, uploaded
from app.cli.output import AsJson, CliError, console, errors, print_json, print_table, when
from app.cli.preflights import say

if TYPE_CHECKING:
    from openai import OpenAI

cli = typer.Typer(
    help="Evals: what answers are judged by, and runs of models over data.", no_args_is_help=True
)

OVER = ("completed", "failed", "canceled")
POLL_SECONDS = 1.0
PAGE = 1000
SHOWN_FAULTS = 5
"""Items that did not pass, of which `show` tells."""

EvalId = Annotated[str, typer.Argument(metavar="EVAL", help="ID of the eval: eval_...")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="ID of the run: evalrun_...")]


@cli.command("list")
def list_evals(
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="How many.")] = 20,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show evals, newest first."""
    with open_client(url, key, data) as client:
        found: Any = client.get(f"/evals?order=desc&limit={limit}", cast_to=object)
    if as_json:
        print_json(found["data"])
        return
    headings = {"id": "ID", "name": "Name", "criteria": "Criteria", "created_at": "Created"}
    rows = [
        {
            **one,
            "criteria": ", ".join(criterion["name"] for criterion in one["testing_criteria"]),
            "created_at": when(one["created_at"]),
        }
        for one in found["data"]
    ]
    print_table(headings, rows, empty="There are no evals.")


@cli.command()
def create(
    path: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="The body of an eval creation, or one grader.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the eval.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make an eval. A file with a grader alone makes one over rows of any form."""
    body = read_object(path)
    if "testing_criteria" not in body:
        config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
        body = {"data_source_config": config, "testing_criteria": [body]}
    if name is not None:
        body["name"] = name
    with open_client(url, key, data) as client:
        made: Any = client.post("/evals", body=body, cast_to=object)
    if as_json:
        print_json(made)
    else:
        say(f"Made {made['id']} ({made['name']}).")


@cli.command()
def run(
    eval_id: EvalId,
    rows: Annotated[
        str | None, typer.Option("--data-file", help="Rows: a path to upload, or the ID of a file.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="A JSON file with a whole data_source, in place of all this."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Who answers; without one the rows' own samples are judged.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What a user asks the model, such as '{{item.question}}'.")
    ] = None,
    messages: Annotated[str, typer.Option(help="Where a row holds its messages.")] = "item.messages",
    temperature: Annotated[float | None, typer.Option(help="Of sampling.", show_default="1")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the run is over.")] = True,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Have rows judged: their own answers, or those of a model. Exit code 1 unless the run completes."""
    if (rows is None) == (source is None):
        raise CliError("give either --data-file or --source")
    with open_client(url, key, data) as client:
        if source is not None:
            made = _begin(client, eval_id, read_object(source), name)
        else:
            sampling = {"temperature": temperature, "max_completion_tokens": max_tokens}
            with uploaded(client, str(rows), "evals") as file_id:
                asked = _data_source(file_id, model, prompt, messages, sampling)
                made = _begin(client, eval_id, asked, name)
        done = _wait(client, made) if wait else made
    if as_json:
        print_json(done)
    else:
        shown.print_run(done)
    if wait and done["status"] != "completed":
        raise typer.Exit(1)


@cli.command()
def show(
    which: Annotated[str, typer.Argument(metavar="EVAL|RUN", help="ID of an eval or a run.")],
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show an eval with its runs, or a run with what did not pass."""
    with open_client(url, key, data) as client:
        if which.startswith("evalrun_"):
            _show_run(client, find_run(client, which), as_json=as_json)
        else:
            _show_eval(client, which, as_json=as_json)


@cli.command()
def cancel(
    run_id: RunId, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Cancel a run. What was judged so far stays."""
    with open_client(url, key, data) as client:
        found = find_run(client, run_id)
        canceled: Any = client.post(f"/evals/{found['eval_id']}/runs/{run_id}", cast_to=object)
    if as_json:
        print_json(canceled)
    else:
        shown.print_run(canceled)


@cli.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="ID of a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="ID of another run over the same rows.")],
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs row by row: how much better B is, its 95 % interval, and the p of a sign-flip test."""
    with open_client(url, key, data) as client:
        found = [find_run(client, run_id) for run_id in (a, b)]
        for one in found:
            if one["status"] != "completed":
                errors.print(f"{one['id']} is {one['status']}: its judged rows are compared.", markup=False)
        compared = comparison.compare(*(_items(client, one) for one in found))
    if compared.rows == 0:
        raise CliError(f"{a} and {b} have no row in common")
    if as_json:
        print_json(shown.as_json_of(compared))
    else:
        shown.print_comparison(compared)


def find_run(client: OpenAI, run_id: str) -> dict[str, Any]:
    """Returns a run by its ID alone: evals are asked for it, the newest first. Raises `CliError`."""
    from openai import NotFoundError

    for one in client.evals.list(order="desc", limit=PAGE):
        try:
            run: Any = client.get(f"/evals/{one.id}/runs/{run_id}", cast_to=object)
        except NotFoundError:
            continue
        found: dict[str, Any] = run
        return found
    raise CliError(f"there is no run {run_id}: `cherry evals show EVAL` lists the runs of an eval")


def _items(client: OpenAI, run: Mapping[str, Any], status: str = "") -> Iterator[dict[str, Any]]:
    """Yields what was judged in a run, page by page."""
    at = f"/evals/{run['eval_id']}/runs/{run['id']}/output_items?limit={PAGE}"
    at, after = at + (f"&status={status}" if status else ""), ""
    while True:
        page: Any = client.get(at + after, cast_to=object)
        yield from page["data"]
        if not page["has_more"]:
            return
        after = f"&after={page['last_id']}"


def _begin(client: OpenAI, eval_id: str, source: Mapping[str, Any], name: str | None) -> Any:
    body = {"data_source": source, **({"name": name} if name else {})}
    return client.post(f"/evals/{eval_id}/runs", body=body, cast_to=object)


def _data_source(
    file_id: str, model: str | None, prompt: str | None, messages: str, sampling: Mapping[str, Any]
) -> dict[str, Any]:
    rows = {"type": "file_id", "id": file_id}
    if model is None:
        return {"type": "jsonl", "source": rows}
    asked = (
        {"type": "item_reference", "item_reference": messages}
        if prompt is None
        else {
            "type": "template",
            "template": [{"role": "user", "content": prompt}],
        }
    )
    params = {name: value for name, value in sampling.items() if value is not None}
    base = {"type": "completions", "model": model, "source": rows, "input_messages": asked}
    return {**base, "sampling_params": params} if params else base


def _wait(client: OpenAI, run: Any) -> Any:
    """Returns the run once it is over, and shows meanwhile how far it is."""
    with console.status(run["status"]) as told:
        while run["status"] not in OVER:
            time.sleep(POLL_SECONDS)
            run = client.get(f"/evals/{run['eval_id']}/runs/{run['id']}", cast_to=object)
            progress = run.get("progress") or {}
            told.update(f"{run['status']} {progress.get('done', 0)} of {progress.get('total') or '?'}")
    return run


def _show_eval(client: OpenAI, eval_id: str, *, as_json: bool) -> None:
    found: Any = client.get(f"/evals/{eval_id}", cast_to=object)
    page: Any = client.get(f"/evals/{eval_id}/runs?order=desc&limit={PAGE}", cast_to=object)
    if as_json:
        print_json({**found, "runs": page["data"]})
        return
    say(f"{found['id']}  {found['name']}")
    for criterion in found["testing_criteria"]:
        say(f"  {criterion['name']} ({criterion['type']})")
    headings = {"id": "Run", "name": "Name", "status": "Status", "model": "Model", "counts": "Passed"}
    rows = [{**one, "counts": shown.passed(one)} for one in page["data"]]
    print_table(headings, rows, empty="It has no runs.")


def _show_run(client: OpenAI, run: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(run)
        return
    shown.print_run(run)
    for status in ("fail", "error"):
        for number, item in enumerate(_items(client, run, status)):
            if number == SHOWN_FAULTS:
                say(f"... more that came to '{status}' are in its output items")
                break
            shown.print_item(item)
