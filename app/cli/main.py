"""Entry point of `cherry`. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from app.cli import (
    cards,
    chat,
    doctor,
    environments,
    files,
    graders,
    jobs,
    keys,
    projects,
    service,
)
from app.cli.evals.commands import cli as evals
from app.cli.flywheel import datasets, feedback, stored
from app.cli.imports.commands import cli as imports
from app.cli.models.commands import cli as models
from app.cli.output import errors
from app.cli.problems import explain
from app.cli.shown import first_words

cli = typer.Typer(
    help="Cherry: reinforcement fine-tuning on your own machines, behind OpenAI's API.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"cherry {version('cherry-rft')}")
        raise typer.Exit


@cli.callback()
def of_all_commands(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        first_words.show()


cli.command()(service.up)
cli.command()(service.api)
cli.command()(service.worker)
cli.command()(service.relay)
cli.command()(service.sampler)
cli.command()(service.migrate)
cli.command("doctor")(doctor.doctor)
cli.command("chat")(chat.chat)
cli.add_typer(keys.cli, name="keys")
cli.add_typer(projects.cli, name="projects")
cli.add_typer(models, name="models")
cli.add_typer(jobs.cli, name="jobs")
cli.add_typer(evals, name="evals")
cli.add_typer(cards.cli, name="cards")
cli.add_typer(files.cli, name="files")
cli.add_typer(stored.cli, name="stored")
cli.add_typer(feedback.cli, name="feedback")
cli.add_typer(datasets.cli, name="datasets")
cli.add_typer(graders.cli, name="graders")
cli.add_typer(environments.cli, name="environments")
cli.add_typer(imports, name="import")


def main() -> None:
    """Run a command. Expected problems are one line on standard error and exit code 1."""
    try:
        cli()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as problem:
        message = explain(problem)
        if message is None:
            raise
        errors.print(f"cherry: {message}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
