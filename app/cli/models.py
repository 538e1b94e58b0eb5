"""`cherry models`: base models, straight in the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.connect import Data, open_database
from app.cli.output import AsJson, console, print_json, print_table
from methods.template_gaps import in_words

cli = typer.Typer(help="Models.", no_args_is_help=True)
aliases = typer.Typer(help="Names that stand for base models, such as OpenAI's.", no_args_is_help=True)
cli.add_typer(aliases, name="alias")


@cli.command()
def add(
    name: Annotated[str, typer.Argument(help="What jobs will call the model.")],
    folder: Annotated[Path, typer.Argument(help="Folder with safetensors weights, config and tokenizer.")],
    data: Data = None,
) -> None:
    """Register a folder as a base model, once it is read and tried.

    Every worker must see it at the same path.
    """
    from app.models import folders
    from app.models import service as models

    folders.check_model_folder(folder.absolute())
    trial = folders.try_model_folder(folder.absolute())
    with open_database(data) as db:
        models.add_base_model(db, name, folder.absolute(), trial.cannot_show)
    if trial.untried:
        console.print(f"The chat template was not tried: {trial.untried}.", markup=False, soft_wrap=True)
    if trial.cannot_show:
        left_out = in_words(trial.cannot_show)
        console.print(
            f"Its chat template does not show {left_out}. Rows that have any are refused when a job is"
            " validated, or warned of (docs/models.md, What templates show).",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"Added {name}.", markup=False)


@cli.command("list")
def list_models(data: Data = None, as_json: AsJson = False) -> None:
    """Show base models and tuned ones."""
    from app.models import service as models
    from app.tenants import service as tenants

    with open_database(data) as db:
        project = tenants.ensure_default_tenant(db)
        rows: list[dict[str, Any]] = [
            {
                "name": model.name,
                "base": model.base,
                "folder": model.folder,
                "job": model.job_id,
                "cannot_show": model.cannot_show,
            }
            for model in models.list_models(db, project.id)
        ]
    if as_json:
        print_json(rows)
        return
    headings = {
        "name": "Name",
        "base": "Base",
        "folder": "Folder",
        "job": "Job",
        "cannot_show": "Does not show",
    }
    shown = [row | {"cannot_show": in_words(row["cannot_show"] or ())} for row in rows]
    print_table(headings, shown, empty="There are no models: add one with `cherry models add NAME FOLDER`.")


@aliases.command("add")
def add_alias(
    name: Annotated[str, typer.Argument(help="What jobs say, such as o4-mini-2025-04-16.")],
    model: Annotated[str, typer.Argument(help="The base model that it stands for.")],
    data: Data = None,
) -> None:
    """Let a name stand for a base model."""
    from app.models import service as models

    with open_database(data) as db:
        models.add_alias(db, name, model)
    console.print(f"{name} stands for {model}.", markup=False)


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
def remove_alias(name: Annotated[str, typer.Argument()], data: Data = None) -> None:
    """Forget an alias. Jobs that were made with it stay."""
    from app.models import service as models

    with open_database(data) as db:
        models.remove_alias(db, name)
    console.print(f"Removed {name}.", markup=False)
