"""`cherry jobs create`: a job out of files, a grader and hyperparameters named on the command line."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.files import MethodName
from app.cli.given_files import checked, read_object
from app.cli.job_bodies import post_with_files
from app.cli.job_end import print_end
from app.cli.output import AsJson, CliError, console, print_json
from app.cli.watching import as_sent, watch

if TYPE_CHECKING:
    from methods.hyperparameters import Declared

NEAR = 0.5
"""How alike two names are for one to be offered for the other. Chosen: `epochs` finds `n_epochs`."""
MOST_NEAR = 4
SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

DataFile = typer.Option(help="A JSONL file to upload, or the id of one that is there.", metavar="FILE|ID")


def create(
    model: Annotated[str, typer.Option(help="The model to train.")],
    train: Annotated[str, DataFile],
    valid: Annotated[str | None, DataFile] = None,
    grader: Annotated[Path | None, typer.Option(help="The grader as JSON; of reinforcement.")] = None,
    method: Annotated[MethodName, typer.Option(help="How it is trained.")] = MethodName.REINFORCEMENT,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A hyperparameter, such as n_epochs=20; repeatable."
        ),
    ] = None,
    response_format: Annotated[
        Path | None, typer.Option(help="The form that answers are held to, as JSON; of reinforcement.")
    ] = None,
    suffix: Annotated[str | None, typer.Option(help="A part of the tuned model's name.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="What random numbers follow from.")] = None,
    name: Annotated[str | None, typer.Option(help="Kept in the job's metadata as `name`.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the job; repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job until it is over.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Start a job. With --wait the exit code is 1 unless it succeeds; as JSON its events follow, then the job
    as it has ended."""
    block = _block(method, grader, response_format, _typed(settings or [], method.value))
    pairs = _pairs("--metadata", metadata or []) | ({"name": name} if name is not None else {})
    files = {
        "training_file": checked(train),
        "validation_file": checked(valid) if valid is not None else None,
    }
    asked: dict[str, Any] = {
        "model": model,
        **files,
        "suffix": suffix,
        "seed": seed,
        "metadata": pairs or None,
    }
    body = {field: value for field, value in asked.items() if value is not None}
    body["method"] = {"type": method.value, method.value: block}
    with open_client(url, key, data) as client:
        made: Any = post_with_files(client, "/fine_tuning/jobs", body)
        if as_json:
            print_json(made)
        else:
            console.print(f"{made['id']}  {made['status']}  {made['model']}", markup=False, soft_wrap=True)
        if not wait:
            return
        job = watch(client, made["id"], as_json=as_json)
        if as_json:
            print_json(as_sent(job))
        else:
            print_end(client, job)
    if job.status != "succeeded":
        raise typer.Exit(1)


def _block(
    method: MethodName, grader: Path | None, response_format: Path | None, numbers: dict[str, Any]
) -> dict[str, Any]:
    """Returns the method's block of a request. Raises `CliError` for what it lacks, or does not read."""
    given = {"grader": grader, "response_format": response_format}
    block: dict[str, Any] = {name: read_object(path) for name, path in given.items() if path is not None}
    if method is MethodName.REINFORCEMENT and grader is None:
        raise CliError("a reinforcement job needs a --grader; --method supervised or dpo does without")
    if method is not MethodName.REINFORCEMENT and block:
        option = "--" + next(iter(block)).replace("_", "-")
        raise CliError(f"{option} is of reinforcement jobs, and the method is {method.value}")
    return {**block, "hyperparameters": numbers} if numbers else block


def _pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            lacks = "name" if sign else "'='"
            raise CliError(f"{option} takes NAME=VALUE, and '{one}' has no {lacks}")
        if name in pairs:
            raise CliError(f"{option} names {name} twice")
        pairs[name] = value
    return pairs


def _typed(given: Sequence[str], method: Literal["reinforcement", "supervised", "dpo"]) -> dict[str, Any]:
    """Returns hyperparameters as JSON has them, by their declarations. Raises `CliError`."""
    from methods.hyperparameters import settable
    from methods.run_config import RequestOnly
    from methods.train_config import TrainConfig
    from methods.tune_config import TuneConfig

    config = TrainConfig if method == "reinforcement" else TuneConfig
    known = {one.name: one for one in [*settable(RequestOnly, method), *settable(config, method)]}
    pairs = _pairs("--set", given)
    for name in pairs:
        if name not in known:
            raise CliError(f"--set: a {method} job has no '{name}'. {_near(name, known)}")
    return {name: _value(known[name], text) for name, text in pairs.items()}


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name.lower(), known, MOST_NEAR, NEAR)
    near += [one for one in known if name.lower() in one and one not in near][: MOST_NEAR - len(near)]
    return f"Near it are: {', '.join(near)}." if near else f"There are: {', '.join(sorted(known))}."


def _value(one: Declared, text: str) -> Any:
    """Returns a value of the declared type; bounds are the service's to hold. Raises `CliError`."""
    from methods.documented import values

    if text == "auto" and one.mark.is_openais:
        return text
    try:
        return _read(one.mark.wire or one.info.annotation, text)
    except ValueError:
        also = " or auto" if one.mark.is_openais else ""
        raise CliError(
            f"--set: '{text}' is no value of {one.name}, which takes {values(one)}{also}"
        ) from None


def _read(kind: Any, text: str) -> Any:
    """Raises `ValueError` for a text that is no such value."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read(next(one for one in inner if one is not type(None)), text)
    if origin is Annotated:
        return _read(inner[0], text)
    if origin is Literal and text not in inner:
        raise ValueError(text)
    if origin is list:
        given = json.loads(text) if text.startswith("[") else text.split(",")
        return [_read(inner[0], str(each)) for each in given]
    if kind is bool:
        if text.lower() not in SWITCHES:
            raise ValueError(text)
        return SWITCHES[text.lower()]
    if kind not in (int, float):
        return text
    number = kind(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
