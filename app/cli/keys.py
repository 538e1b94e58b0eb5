"""`cherry keys`: API keys, straight in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.connect import Data, open_database
from app.cli.output import AsJson, CliError, console, print_json, print_table, tell

cli = typer.Typer(help="API keys.", no_args_is_help=True)


@cli.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    admin: Annotated[
        bool, typer.Option("--admin", help="A key that manages projects and their keys, and nothing else.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once."""
    from app.tenants import service as tenants

    with open_database(data) as db:
        project = tenants.ensure_default_tenant(db)
        key: tenants.NewKey | tenants.NewAdminKey
        if admin:
            key = tenants.create_admin_key(db, project.organization_id, name)
        else:
            key = tenants.create_key(db, project.id, name)
    if as_json:
        print_json({"id": key.row.id, "name": name, "key": key.plaintext})
    else:
        console.print(key.plaintext, markup=False, soft_wrap=True)


@cli.command("list")
def list_keys(data: Data = None, as_json: AsJson = False) -> None:
    """Show keys, the revoked ones too."""
    from app.tenants import service as tenants
    from app.tenants.models import AdminApiKey, ApiKey

    with open_database(data) as db:
        project = tenants.ensure_default_tenant(db)
        keys: list[ApiKey | AdminApiKey] = [*tenants.list_keys(db, project.id)]
        keys += tenants.list_admin_keys(db, project.organization_id)
        rows = [
            {
                "id": key.id,
                "kind": "project" if isinstance(key, ApiKey) else "admin",
                "name": key.name,
                "key": key.redacted,
                "created_at": key.created_at,
                "last_used_at": key.last_used_at,
                "revoked_at": key.revoked_at,
            }
            for key in keys
        ]
    if as_json:
        print_json(rows)
        return
    headings = {"id": "ID", "kind": "Kind", "name": "Name", "key": "Key", "created_at": "Created"}
    headings |= {"last_used_at": "Last used", "revoked_at": "Revoked"}
    seconds = [
        {**row, **{k: f"{v:%Y-%m-%d %H:%M:%S}" for k, v in row.items() if hasattr(v, "year")}} for row in rows
    ]
    print_table(headings, seconds, empty="There are no keys.")


@cli.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="ID of the key: key_...")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key useless at once."""
    from app.tenants import service as tenants

    with open_database(data) as db:
        project = tenants.ensure_default_tenant(db)
        revoked = tenants.revoke_key(db, project.id, key_id)
        if not revoked and not tenants.revoke_admin_key(db, project.organization_id, key_id):
            raise CliError(f"there is no valid key {key_id}: `cherry keys list` shows them")
    tell({"id": key_id, "revoked": True}, f"Revoked {key_id}.", as_json=as_json)
