"""`cherry models download`: a tuned model or a checkpoint, unpacked in a folder, and how it is used."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client
from app.cli.output import AsJson, CliError, console, errors, print_json
from app.exports.use import Format

if TYPE_CHECKING:
    from openai import OpenAI

    from app.cli.taking.resuming import Telling

ADAPTER_CONFIG, MANIFEST = "adapter_config.json", "manifest.json"
BASE = "base"
SECONDS = 600
"""How long the service may read files before the first byte: a sum over all of them comes before it."""


def download(
    name: Annotated[str, typer.Argument(help="A tuned model, or a checkpoint by its name or id.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="What of it.", show_default="all files, as they were stored"),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The folder that is made.", show_default="named after the model")
    ] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Download a tuned model, check it, unpack it, and show how it is used.

    A download that broke off goes on where it stopped.
    """
    from app.cli.taking import lines
    from app.exports.use import short_name

    with open_client(url, key, data) as client:
        checkpoint = lines.checkpoint_of(client, name)
        model = checkpoint["fine_tuned_model_checkpoint"]
        folder = (to or Path(short_name(model) + (f"-{form}" if form else ""))).absolute()
        sha256 = take(client, checkpoint, form, folder, quiet=as_json)
    if as_json:
        print_json({"folder": str(folder), "format": form, "model": model, "sha256": sha256})
        return
    console.print(f"{model} is in {folder} (sha256 of the download: {sha256}).", markup=False, soft_wrap=True)
    for each in checkpoint["downloads"]:
        if each["format"] == form:
            lines.print_use(each, str(folder))


def take(
    client: OpenAI,
    checkpoint: dict[str, Any],
    form: Format | None,
    folder: Path,
    *,
    quiet: bool,
    base_at: str | None = None,
) -> str:
    """Brings a form of a checkpoint to a folder, and goes on with what lies beside it. Returns its SHA-256.

    `base_at` is what an adapter's config calls a base that came along: its place in the folder, if not given.
    Raises `CliError`.
    """
    _check_free(folder)
    part = folder.with_name(f".{folder.name}.{checkpoint['id']}{f'.{form}' if form else ''}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _bring(client, checkpoint, form, part, quiet=quiet)
    with part.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _unpack(part, folder, base_at)
    part.unlink()
    return sha256


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(f"{folder} is there already: give another place with --to")


def _bring(
    client: OpenAI, checkpoint: dict[str, Any], form: Format | None, part: Path, *, quiet: bool
) -> None:
    import httpx2 as httpx

    from app.cli.taking.resuming import fetch

    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    job = checkpoint["fine_tuning_job_id"]
    path = f"{root}/v1/fine_tuning/jobs/{job}/checkpoints/{checkpoint['id']}/download"
    headers = {"authorization": f"Bearer {client.api_key}"}
    query = {"format": form} if form else {}
    with httpx.Client(headers=headers, params=query, timeout=SECONDS) as http, _shown(quiet) as telling:
        fetch(http, path, part, telling)


@contextmanager
def _shown(quiet: bool) -> Iterator[Telling]:
    """Shows on the standard error, if that is a terminal, how far a download is."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from app.cli.taking.resuming import Telling

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal, transient=True) as bar:
        task = bar.add_task("Downloading", total=None)

        def making(told: dict[str, Any]) -> None:
            progress = told.get("progress") or {}
            share = f" {progress['share']:.0%}" if progress.get("share") is not None else ""
            bar.update(
                task, description=f"The service makes it: {progress.get('phase', told['status'])}{share}"
            )

        def count(here: int, total: int) -> None:
            bar.update(task, description="Downloading", completed=here, total=total)

        yield Telling(count, making)


def _unpack(part: Path, folder: Path, base_at: str | None = None) -> None:
    """Unpacks plain files below a folder, which appears whole."""
    import shutil

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(part, "r:") as tar:
            tar.extractall(partial, filter="data")
        _name_base(partial, base_at or str(folder / BASE))
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except tarfile.TarError as problem:
        raise CliError(f"the download cannot be unpacked: {problem}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name_base(unpacked: Path, place: str) -> None:
    """Lets the config of an adapter name the base that came along by its place."""
    config = unpacked / ADAPTER_CONFIG
    if config.is_file() and (unpacked / BASE).is_dir():
        said = json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": place}
        rewrite(unpacked, ADAPTER_CONFIG, json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def rewrite(unpacked: Path, name: str, text: str) -> None:
    """Writes a file of a download anew, and its sum in the manifest."""
    data, manifest = text.encode(), unpacked / MANIFEST
    (unpacked / name).write_bytes(data)
    sums = json.loads(manifest.read_text("utf-8"))
    sums["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(sums, indent=2, ensure_ascii=False) + "\n", "utf-8")
