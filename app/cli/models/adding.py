"""`cherry models add`: a folder becomes a base model, once it was read, tried and its numbers looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import typer

from app.cli.connect import Data, open_database
from app.cli.output import AsJson, CliError, errors, tell
from methods.template_gaps import in_words

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.models.bases import Origin
    from app.models.folders import Trial


def add(
    name: Annotated[str, typer.Argument(help="What jobs will call the model.")],
    folder: Annotated[
        Path, typer.Argument(help="Folder with safetensors weights, config and tokenizer, or a GGUF file.")
    ],
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
    as_json: AsJson = False,
) -> None:
    """Register a folder as a base model, once it is read and tried.

    Every worker must see it at the same path. A GGUF file gets a folder of its own, without quantisation.
    """
    from app.models import gguf_files
    from app.models import service as models
    from app.settings import get_settings

    source, allowed, text = folder.absolute(), _methods(methods), _template(template)
    asked = _Asked(name, source, revision, hub, licence, allowed, text, replace, as_json)
    models.check_base_name(name)
    _check_named(hub, licence)
    with open_database(data) as db:
        before = _folder_before(db, asked)
    if not gguf_files.is_gguf(asked.source):
        return _add(asked, asked.source, before, data)
    with errors.status(f"Reading {asked.source} ..."):
        digest = gguf_files.hash_of(asked.source)
    asked = asked._replace(revision=revision or f"sha256:{digest}")
    with gguf_files.folder_of(get_settings().data_dir, name, asked.source, digest) as made:
        return _add(asked, made, before, data)


class _Asked(NamedTuple):
    """Says what is to be added: `source` is the folder or file as it was given."""

    name: str
    source: Path
    revision: str | None
    hub: str | None
    licence: str | None
    methods: list[str] | None
    template: str | None
    replace: bool
    as_json: bool


def _add(asked: _Asked, folder: Path, before: str | None, data: Path | None) -> None:
    """Reads, tries and registers a model folder; `before` is what its name has meant."""
    from app.models import bases, folders
    from app.settings import get_settings

    name, text, data_dir = asked.name, asked.template, get_settings().data_dir
    folders.check_model_folder(folder, with_template=text is None)
    with errors.status(f"Reading the numbers of {folder} ..."):
        hashes = folders.hashes_of_weights(folder)
    origin = bases.origin_of(folder, asked.revision, hashes, text, hub=asked.hub, licence=asked.licence)
    origin = origin._replace(folder=str(asked.source))
    trial, told = _tried(folder, text)
    place = folder
    if text is not None:
        place = bases.make_folder(data_dir, name, folder, origin, text)
    try:
        with open_database(data) as db:
            before = _folder_before(db, asked)
            _register(db, name, place, origin, trial, asked.methods)
    except BaseException:
        if before != str(place):
            bases.remove_made(data_dir, str(place))
        raise
    for left in {before, str(folder)} - {str(place)}:
        bases.remove_made(data_dir, left)
    sentences = list(_told(trial, told))
    values = {
        "name": name,
        "folder": str(place),
        "cannot_show": list(trial.cannot_show or ()),
        "notes": sentences,
    }
    tell(values, "\n".join([*sentences, f"Added {name}."]), as_json=asked.as_json)


def _folder_before(db: Session, asked: _Asked) -> str | None:
    """Returns the folder that a name means now.

    Raises `CliError` if it means one and may not be replaced, `BaseModelInvalid` if it is an alias.
    """
    from app.models import bases
    from app.models import service as models

    known = bases.find_base(db, asked.name, locked=True)
    if known is None:
        models.check_no_alias(db, asked.name)
        return None
    if not asked.replace:
        raise CliError(
            f"{asked.name} is a model already, in {known.folder}: --replace lets the name mean"
            f" {asked.source}, or give another name"
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


def _told(trial: Trial, told: str | None) -> Iterator[str]:
    """Yields what a person should know of the model that was added."""
    if trial.untried:
        yield f"The chat template was not tried: {trial.untried}."
    if trial.cannot_show:
        yield (
            f"Its chat template does not show {in_words(trial.cannot_show)}. Rows that have any are refused"
            " when a job is validated, or warned of (docs/models.md, What templates show)."
        )
    if (family := trial.family) is not None:
        named = f"Its chat template is {family['template']}. " if family["template"] else ""
        yield f"{named}Thoughts: {family['thoughts']}. Tool calls: {family['calls']}. {family['mend']}"
    if told:
        yield told


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
