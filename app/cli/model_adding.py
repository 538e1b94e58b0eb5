"""`cherry models add`: a folder becomes a base model, once it was read, tried and its numbers looked at."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from app.cli.connect import Data, open_database
from app.cli.output import CliError, console, errors
from methods.template_gaps import in_words

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.models.bases import Origin
    from app.models.folders import Trial


def add(
    name: Annotated[str, typer.Argument(help="What jobs will call the model.")],
    folder: Annotated[Path, typer.Argument(help="Folder with safetensors weights, config and tokenizer.")],
    revision: Annotated[
        str | None, typer.Option(help="Which version it is, such as a commit.", show_default="as downloaded")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(
            help="Its id on the hub, by which others find it: adapters name it.",
            metavar="ORG/NAME",
            show_default="of a folder in the hub's cache",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Its licence, such as apache-2.0.", show_default="as its card says"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="By which jobs may train it, such as reinforcement,dpo.", show_default="all"),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="A chat template, in place of the folder's.", metavar="FILE.jinja")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let a name that is taken mean this.")] = False,
    data: Data = None,
) -> None:
    """Register a folder as a base model, once it is read and tried.

    Every worker must see it at the same path.
    """
    from app.models import bases, folders
    from app.models import service as models
    from app.settings import get_settings

    folder, allowed, text = folder.absolute(), _methods(methods), _template(template)
    models.check_base_name(name)
    _check_named(hub, licence)
    with open_database(data) as db:
        before = _folder_before(db, name, folder, replace)
    folders.check_model_folder(folder, with_template=text is None)
    with errors.status(f"Reading the numbers of {folder} ..."):
        hashes = folders.hashes_of_weights(folder)
    origin = bases.origin_of(folder, revision, hashes, text, hub=hub, licence=licence)
    trial, told = _tried(folder, text)
    place = folder
    if text is not None:
        place = bases.make_folder(get_settings().data_dir, name, folder, origin, text)
    try:
        with open_database(data) as db:
            before = _folder_before(db, name, folder, replace)
            _register(db, name, place, origin, trial, allowed)
    except BaseException:
        if before != str(place):
            bases.remove_made(get_settings().data_dir, str(place))
        raise
    if before != str(place):
        bases.remove_made(get_settings().data_dir, before)
    _tell(trial, told)
    console.print(f"Added {name}.", markup=False)


def _folder_before(db: Session, name: str, folder: Path, replace: bool) -> str | None:
    """Returns the folder that a name means now.

    Raises `CliError` if it means one and may not be replaced, `BaseModelInvalid` if it is an alias.
    """
    from app.models import bases
    from app.models import service as models

    known = bases.find_base(db, name, locked=True)
    if known is None:
        models.check_no_alias(db, name)
        return None
    if not replace:
        raise CliError(
            f"{name} is a model already, in {known.folder}: --replace lets the name mean {folder}, or give"
            " another name"
        )
    return known.folder


def _register(
    db: Session, name: str, place: Path, origin: Origin, trial: Trial, methods: list[str] | None
) -> None:
    """Makes or changes the row, and tells what changes."""
    from app.models import bases
    from app.models import service as models

    known = bases.find_base(db, name)
    if known is not None:
        changed = bases.changes(known, origin, methods)
        if known.folder != str(place) or not bases.has_same_weights(known, origin):
            bases.check_unused(db, name, "replaced")
        for sentence in changed or ["Nothing changes."]:
            errors.print(sentence, markup=False, soft_wrap=True)
    models.add_base_model(db, name, place, trial.cannot_show, methods, origin._asdict())


def _tried(folder: Path, template: str | None) -> tuple[Trial, str | None]:
    """Tries tokenizer, template and engine in child processes; the second is what an operator should know."""
    from app.models import folders
    from methods.model_files.template import with_template

    with tempfile.TemporaryDirectory(prefix="cherry-add-") as scratch:
        tried = folder
        if template is not None:
            tried = Path(scratch) / folder.name
            with_template(folder, tried, template, weights=False)
        trial = folders.try_model_folder(tried)
    return trial, None if trial.untried else folders.try_engine(folder)


def _tell(trial: Trial, told: str | None) -> None:
    said: list[Any] = []
    if trial.untried:
        said.append(f"The chat template was not tried: {trial.untried}.")
    if trial.cannot_show:
        said.append(
            f"Its chat template does not show {in_words(trial.cannot_show)}. Rows that have any are refused"
            " when a job is validated, or warned of (docs/models.md, What templates show)."
        )
    for sentence in [*said, *filter(None, [told])]:
        console.print(sentence, markup=False, soft_wrap=True)


def _methods(given: str | None) -> list[str] | None:
    from methods.hyperparameters import Method

    if given is None:
        return None
    known, named = get_args(Method), [each.strip() for each in given.split(",")]
    if unknown := [each for each in named if each not in known]:
        raise CliError(f"--methods: there is no method '{unknown[0]}'. There are: {', '.join(known)}")
    return [method for method in known if method in named]


def _check_named(hub: str | None, licence: str | None) -> None:
    from methods.model_files.hub_cache import HUB_ID
    from methods.model_files.licence import LICENCE

    if hub is not None and not HUB_ID.fullmatch(hub):
        raise CliError(f"--hub: '{hub}' is no id of the hub: give ORG/NAME")
    if licence is not None and not LICENCE.fullmatch(licence):
        raise CliError(f"--license: '{licence}' is no id of a licence: give one such as apache-2.0")


def _template(path: Path | None) -> str | None:
    from methods.model_files.folder import ModelFolderInvalid
    from methods.model_files.template import read_template

    try:
        return None if path is None else read_template(path)
    except ModelFolderInvalid as problem:
        raise CliError(f"--template: {problem}") from None
