"""Options that several commands of the flywheel have, read into what requests say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from app.cli.output import CliError

Model = Annotated[str | None, typer.Option("--model", help="Of this model.", show_default="any")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="With this pair; several times.")
]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="TIME", help="Stored then or later: 2026-12-01, or with T14:30 (UTC)."),
]
Before = Annotated[str | None, typer.Option("--before", metavar="TIME", help="Stored before that.")]


def given(**values: Any) -> dict[str, Any]:
    """Returns the values that were given, by their names in a request."""
    return {name: value for name, value in values.items() if value is not None}


def metadata_of(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """Returns pairs as a mapping; None without any. Raises `CliError` for what is no pair."""
    found = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise CliError(f"'{pair}' is no pair: write --metadata KEY=VALUE")
        found[key] = value
    return found or None


def seconds_of(moment: str | None, option: str) -> int | None:
    """Returns a time in seconds since 1970. Raises `CliError` for what is no time."""
    if moment is None:
        return None
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        raise CliError(f"{option} '{moment}' is no time: write 2026-12-01 or 2026-12-01T14:30") from None
    return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())
