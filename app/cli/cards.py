"""`cherry cards`: checks a download against its run card, and keeps the keys that sign cards."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.connect import Data, Key, Url, open_client, open_database
from app.cli.output import AsJson, CliError, console, print_json, print_table, when

cli = typer.Typer(help="Run cards: what a job was made of, signed.", no_args_is_help=True)


@cli.command()
def verify(
    card: Annotated[Path, typer.Argument(help="The card: card.json of the download, or of the API.")],
    download: Annotated[Path, typer.Argument(help="The unpacked download of a checkpoint, or its tar.")],
    key: Annotated[
        str,
        typer.Option(
            "--key", help="Public key: base64, a PEM, the JSON of `cherry cards keys`, or such a file."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check a downloaded checkpoint against its card. Needs no service. Exit code 1 if anything differs."""
    from app.cards import signature, verification

    try:
        keys = signature.read_keys(_text_of(key))
        found = verification.verify(verification.read_document(card), download, keys)
    except (signature.KeyUnreadable, verification.Unreadable) as problem:
        raise CliError(str(problem)) from None
    if as_json:
        print_json({"verified": found.is_good, **vars(found)})
    else:
        for line in _told(found):
            console.print(line, markup=False, soft_wrap=True)
    if not found.is_good:
        raise typer.Exit(1)


@cli.command("keys")
def list_keys(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show the public keys of a service's cards, the retired ones too."""
    with open_client(url, key, data) as client:
        answered: Any = client.get("/fine_tuning/card_keys", cast_to=object)
    if as_json:
        print_json(answered)
        return
    headings = {"id": "ID", "public_key": "Public key", "created_at": "Created", "retired_at": "Retired"}
    rows = [
        {**each, "created_at": when(each["created_at"]), "retired_at": when(each["retired_at"])}
        for each in answered["data"]
    ]
    print_table(headings, rows, empty="There are no keys: the service has no CHERRY_SECRET_KEY.")


@cli.command("rotate-key")
def rotate_key(data: Data = None, as_json: AsJson = False) -> None:
    """Let another key sign cards from now on. The one before stays listed, and checks what it has signed."""
    from app.cards import keys
    from app.sealing import Sealer
    from app.settings import get_settings

    with open_database(data) as db:
        made = keys.rotate(db, Sealer(get_settings()))
    public = base64.b64encode(made.public_key).decode()
    if as_json:
        print_json({"id": made.id, "public_key": public})
    else:
        console.print(f"{made.id}  {public}", markup=False, soft_wrap=True)


def _text_of(given: str) -> str:
    """Returns what is in a file of that name, or the text itself where there is none."""
    path = Path(given)
    try:
        return path.read_text() if path.is_file() else given
    except UnicodeDecodeError:
        raise CliError(f"{given} is no text") from None
    except OSError:  # too long for a name
        return given


def _told(found: Any) -> list[str]:
    if not found.is_good:
        return [f"NOT VERIFIED: {problem}." for problem in found.problems]
    what = "which the job delivered" if found.delivered else "which is not the one that the job delivered"
    return [
        f"Verified: {found.files} files are those of step {found.step} of {found.job_id}, {what};"
        f" signed with {found.key_id}."
    ]
