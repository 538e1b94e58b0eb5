"""`cherry models`: base models, straight in the database, and tuned ones to take home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.connect import Data, open_database
from app.cli.models import adding, show
from app.cli.models.show import in_short
from app.cli.output import AsJson, console, errors, print_json, print_table, tell
from app.cli.taking import download as taking
from app.cli.taking import push as pushing
from methods.template_gaps import in_words

cli = typer.Typer(help="Models.", no_args_is_help=True)
aliases = typer.Typer(help="Names that stand for base models, such as OpenAI's.", no_args_is_help=True)
cli.add_typer(aliases, name="alias")


cli.command()(adding.add)
cli.command()(show.show)
cli.command()(taking.download)
cli.command()(pushing.push)


@cli.command("list")
def list_models(data: Data = None, as_json: AsJson = False) -> None:
    """Show base models and tuned ones."""
    from app.models import service as models
    from app.tenants import service as tenants
    from methods.model_files.glance import at_a_glance

    with open_database(data) as db:
        project = tenants.ensure_default_tenant(db)
        found = [
            (model, model.folder and at_a_glance(Path(model.folder)))
            for model in models.list_models(db, project.id)
        ]
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "base": model.base,
            "parameters": glance.parameters if glance else None,
            "context": glance.context if glance else None,
            "methods": model.methods,
            "folder": model.folder,
            "job": model.job_id,
            "cannot_show": model.cannot_show,
        }
        for model, glance in found
    ]
    if as_json:
        print_json(rows)
        return
    headings = {
        "name": "Name",
        "base": "Base",
        "parameters": "Parameters",
        "context": "Context",
        "methods": "Methods",
        "folder": "Folder",
        "job": "Job",
        "cannot_show": "Does not show",
    }
    shown = [
        row
        | {
            "parameters": in_short(row["parameters"]),
            "context": "" if row["context"] is None else f"{row['context']:,}",
            "methods": ", ".join(row["methods"] or ()),
            "cannot_show": in_words(row["cannot_show"] or ()),
        }
        for row in rows
    ]
    print_table(headings, shown, empty="There are no models: add one with `cherry models add NAME FOLDER`.")


@cli.command("rm")
def remove(
    name: Annotated[str, typer.Argument(help="The base model to forget.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Forget a base model, unless an unfinished job uses it. Its folder stays, and what was tuned from it.

    It asks where aliases go with it, and for the model that ships with Cherry.
    """
    from app.models import bases
    from app.settings import get_settings

    if not yes:
        _ask(name, data)
    with open_database(data) as db:
        removed = bases.remove(db, name)
    is_made = bases.remove_made(get_settings().data_dir, removed.folder)
    if as_json:
        print_json({"name": name, **removed._asdict()})
        return
    aliases = f", and what stood for it: {', '.join(removed.aliases)}" if removed.aliases else ""
    console.print(f"Removed {name}{aliases}.", markup=False, soft_wrap=True)
    stay = [f"models tuned from it ({removed.tuned})", f"jobs that started from it ({removed.jobs})"]
    stay += [] if is_made else [f"its folder {removed.folder}"]
    console.print(f"What stays: {', '.join(stay)}.", markup=False, soft_wrap=True)


def _ask(name: str, data: Data) -> None:
    """Asks before more goes than was named, and before a model goes that the next start brings back."""
    from app.embedded.first_run import BUILT_IN_CANNOT_SHOW, built_in_model
    from app.models import bases

    with open_database(data) as db:
        goes = bases.would_remove(db, name)
    told = [f"What stands for {name} goes with it: {', '.join(goes.aliases)}."] if goes.aliases else []
    if name in BUILT_IN_CANNOT_SHOW and built_in_model(name):
        told.append(f"{name} ships with Cherry, whose next start brings it back, without aliases.")
    if told:
        errors.print(" ".join(told), markup=False, soft_wrap=True)
        typer.confirm(f"Remove {name}?", abort=True, err=True)


@aliases.command("add")
def add_alias(
    name: Annotated[str, typer.Argument(help="What jobs say, such as o4-mini-2025-04-16.")],
    model: Annotated[str, typer.Argument(help="The base model that it stands for.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Let a name stand for a base model."""
    from app.models import service as models

    with open_database(data) as db:
        models.add_alias(db, name, model)
    tell({"name": name, "model": model}, f"{name} stands for {model}.", as_json=as_json)


@aliases.command("list")
def list_aliases(data: Data = None, as_json: AsJson = False) -> None:
    """Show the aliases."""
    from app.models import service as models

    with open_database(data) as db:
        rows = [{"name": alias.name, "model": alias.model} for alias in models.list_aliases(db)]
    if as_json:
        print_json(rows)
        return
    print_table({"name": "Name", "model": "Stands for"}, rows, empty="There are no aliases.")


@aliases.command("remove")
def remove_alias(name: Annotated[str, typer.Argument()], data: Data = None, as_json: AsJson = False) -> None:
    """Forget an alias. Jobs that were made with it stay."""
    from app.models import service as models

    with open_database(data) as db:
        models.remove_alias(db, name)
    tell({"name": name, "removed": True}, f"Removed {name}.", as_json=as_json)
