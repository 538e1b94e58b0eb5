"""Finds the service that a command is about: by option, by environment, or the one that runs in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from app.cli.output import CliError

if TYPE_CHECKING:
    from openai import OpenAI
    from sqlalchemy.orm import Session

DEFAULT_FOLDER = Path(".cherry")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of a service that runs here.", envvar="CHERRY_DATA_DIR", show_default=".cherry"
    ),
]
Url = Annotated[str | None, typer.Option("--url", help="Where the service is.", envvar="CHERRY_URL")]
Key = Annotated[str | None, typer.Option("--key", help="API key.", envvar="CHERRY_API_KEY", show_envvar=True)]


def open_client(url: str | None, key: str | None, data: Path | None) -> OpenAI:
    """Returns the official client, pointed at the service; without a folder at that of CHERRY_DATA_DIR."""
    from openai import OpenAI

    from app.embedded.supervisor import read_state

    folder = data or Path(os.environ.get("CHERRY_DATA_DIR") or DEFAULT_FOLDER)
    if url is None:
        state = read_state(folder)
        if state is None:
            raise CliError(f"{no_service(folder)}, or give --url and --key")
        url = str(state["url"])
    if key is None:
        try:
            key = (folder / "api_key").read_text().strip()
        except OSError:
            raise CliError("no API key: give --key or set CHERRY_API_KEY") from None
    _check_address(url)
    base = url.rstrip("/")
    return OpenAI(base_url=base if base.endswith("/v1") else f"{base}/v1", api_key=key)


def _check_address(url: str) -> None:
    """Raises `CliError` for what is no address of a service, such as one without http://."""
    try:
        address = urlsplit(url)
        is_whole = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        is_whole = False
    if is_whole:
        return
    if "://" not in url:
        raise CliError(f"'{url}' is no address of a service, http:// is missing: give --url http://{url}")
    raise CliError(f"'{url}' is no address of a service: give --url http://HOST:PORT or https://HOST")


def no_service(folder: Path) -> str:
    """Says that no service runs on a folder, and how to name the folder of one that does."""
    return (
        f"no service runs on {folder}: start one with `cherry up`, name the folder of a running one with"
        " --data or CHERRY_DATA_DIR"
    )


def without_service() -> None:
    """Lets settings be read where no service is: what must be set of one is filled in, and nobody uses it."""
    os.environ.setdefault("DATABASE_URL", "postgresql://nobody@nowhere/none")
    os.environ.setdefault("CHERRY_BROKER_URL", "memory://")


@contextmanager
def open_database(data: Path | None) -> Iterator[Session]:
    """Opens a unit of work on the database of the service in that folder, or of DATABASE_URL."""
    import app.tables  # noqa: F401  # foreign keys are found by table name
    from app.db import unit_of_work
    from app.embedded.supervisor import read_state
    from app.settings import get_settings

    folder = data or DEFAULT_FOLDER
    if state := read_state(folder):
        os.environ["DATABASE_URL"] = state["database_url"]
        os.environ["CHERRY_BROKER_URL"] = state["broker_url"]
        os.environ["CHERRY_DATA_DIR"] = state["data_dir"]
        os.environ["CHERRY_STORAGE_URL"] = state["storage_url"]
        with suppress(OSError):  # an operator's own is in the environment already
            os.environ.setdefault("CHERRY_SECRET_KEY", (folder / "secret_key").read_text().strip())
    elif not (os.environ.get("DATABASE_URL") or os.environ.get("CHERRY_DATABASE_URL")):
        raise CliError(f"{no_service(folder)}, or set DATABASE_URL")
    os.environ.setdefault("CHERRY_BROKER_URL", "memory://")  # these commands wake nobody
    get_settings.cache_clear()
    with unit_of_work() as db:
        yield db
