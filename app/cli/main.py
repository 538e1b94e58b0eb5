"""Entry point of `cherry`. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from app.cli import cards, chat, doctor, files, graders, imports, jobs, keys, models, projects, service
from app.cli.output import CliError, errors

cli = typer.Typer(
    help="Cherry: reinforcement fine-tuning on your own machines, behind OpenAI's API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"cherry {version('cherry-rft')}")
        raise typer.Exit


@cli.callback()
def of_all_commands(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


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
cli.add_typer(models.cli, name="models")
cli.add_typer(jobs.cli, name="jobs")
cli.add_typer(cards.cli, name="cards")
cli.add_typer(files.cli, name="files")
cli.add_typer(graders.cli, name="graders")
cli.add_typer(imports.cli, name="import")


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


def explain(problem: Exception) -> str | None:
    """Returns a sentence for a problem that is no fault of the program, or None for one that is."""
    from openai import APIConnectionError, APIError, APIStatusError
    from pydantic import ValidationError
    from sqlalchemy.exc import OperationalError

    from app.models.folders import BaseModelInvalid
    from app.models.service import AliasInvalid
    from app.process import EmbeddedError
    from app.sealing import NoSecretKey
    from app.settings import SettingUnknown

    known = CliError | EmbeddedError | AliasInvalid | BaseModelInvalid | NoSecretKey | SettingUnknown
    if isinstance(problem, known):
        return str(problem)
    if isinstance(problem, APIConnectionError):
        address = problem.request.url.copy_with(path="/", query=None)
        return f"cannot reach the service at {address}: is it running?"
    if isinstance(problem, APIStatusError):
        body = problem.body if isinstance(problem.body, dict) else {}
        return str(body.get("message") or problem.message)
    if isinstance(problem, APIError):  # in the middle of a stream
        return problem.message
    if isinstance(problem, ValidationError) and problem.title in ("Settings", "Given"):
        faults = (": ".join([*_setting(fault["loc"]), fault["msg"]]) for fault in problem.errors())
        return f"settings are wrong or missing ({'; '.join(faults)})"
    if isinstance(problem, OperationalError):
        return f"the database does not answer: {str(problem.orig).strip().splitlines()[0]}"
    if isinstance(problem, OSError):
        return _of_a_file(problem)
    return None


def _setting(place: tuple[int | str, ...]) -> list[str]:
    """Returns the name in the environment of the setting that a fault is in; none where it is in several."""
    from app.settings import PREFIX

    if not place:
        return []
    field, *inner = map(str, place)
    return [".".join([field if field.isupper() else f"{PREFIX}{field.upper()}", *inner])]


def _of_a_file(problem: OSError) -> str:
    """Returns the system's words without its number: `nope.jsonl: No such file or directory`."""
    if problem.filename is None or problem.strerror is None:
        return str(problem)
    return f"{problem.filename}: {problem.strerror}"


if __name__ == "__main__":
    main()
