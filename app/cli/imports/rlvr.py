"""`cherry import rlvr`: published RLVR rows, as a training file and its grader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import AsJson, CliError, console, print_json, print_table


def rlvr(
    path: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Rows of open-instruct or verl.")],
    out: Annotated[Path, typer.Option(help="Where train.jsonl and grader.json go.")] = Path("rlvr"),
    remap: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Read a verifier's name as another.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1000, help="Multiplies rewards.")] = 1.0,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The judge for rows of general-* and rubric, which need one."),
    ] = None,
    valid: Annotated[int, typer.Option(min=0, max=1000, help="Rows to hold out in valid.jsonl.")] = 0,
    force: Annotated[bool, typer.Option(help="Overwrite what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn RLVR rows into a training file and the grader for it."""
    from graders.types import GraderInvalid
    from methods.rlvr_import import import_rlvr
    from methods.rows import DatasetInvalid

    try:
        imported = import_rlvr(path, remap=_pairs(remap or []), scale=scale, judge=judge)
    except DatasetInvalid as invalid:
        raise CliError(f"{path} cannot be imported:\n" + str(invalid)) from None
    except GraderInvalid as invalid:
        raise CliError(f"--remap: {invalid.message}") from None
    train, held_out = _split(imported.rows, valid)
    files = {"train.jsonl": _lines(train), "grader.json": json.dumps(imported.grader, indent=2) + "\n"}
    if held_out:
        files["valid.jsonl"] = _lines(held_out)
    _write(out, files, force)
    told = {
        "files": {name: str(out / name) for name in files},
        "rows": {"train": len(train), "valid": len(held_out)},
        "verifiers": dict(imported.verifiers),
        "notes": imported.told(),
    }
    _tell(told, as_json)


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    rows = [{"verifier": name, "rows": count} for name, count in told["verifiers"].items()]
    print_table({"verifier": "Verifier", "rows": "Rows"}, rows, empty="")
    for note in told["notes"]:
        console.print(f"- {note}", markup=False)
    console.print("Wrote " + ", ".join(told["files"].values()), markup=False)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = dict(one.partition("=")[::2] for one in given)
    if any(not old or not new for old, new in pairs.items()):
        raise CliError("--remap takes OLD=NEW, such as --remap ifeval=ifeval_old")
    return pairs


def _split(rows: list[dict[str, Any]], n_valid: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Splits rows into those to train on and so many others, spread evenly over the file."""
    if n_valid >= len(rows):
        raise CliError(f"there are {len(rows)} rows: --valid {n_valid} leaves none to train on")
    held_out = {at * len(rows) // n_valid for at in range(n_valid)}
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for at, row in enumerate(rows):
        parts[at in held_out].append(row)
    return parts


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(folder: Path, files: dict[str, str], force: bool) -> None:
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        raise CliError(f"{folder / there[0]} is there already: give another --out, or --force")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
