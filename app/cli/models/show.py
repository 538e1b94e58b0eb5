"""`cherry models show`: what there is to know of a model, as far as a person asks before a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connect import Data, open_database
from app.cli.output import AsJson, CliError, console, print_json
from methods import memory
from methods.memory import Device
from methods.sizes.model_size import ModelSize
from methods.template_gaps import in_words

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.models.models import Model

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def show(
    name: Annotated[str, typer.Argument(help="A base model, a tuned one, a checkpoint or an alias.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is, what it takes and where it came from."""
    with open_database(data) as db:
        found, folder = _row(db, name)
    facts = _inspected(folder)
    told = {**found, **facts, "memory": _memory(facts["size"])}
    if as_json:
        print_json(told)
        return
    for title, value in _lines(told):
        console.print(f"{title:20} {value}", markup=False, soft_wrap=True)


def in_short(number: int | None) -> str:
    """Writes a count of parameters for people: 3.8M, 135M, 7.6B."""
    if number is None:
        return ""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _row(db: Session, name: str) -> tuple[dict[str, Any], Path | None]:
    """Returns what the database knows of a model, and the folder that it lies in on this machine."""
    from app.models import bases
    from app.models import service as models
    from app.tenants import service as tenants

    project = tenants.ensure_default_tenant(db)
    model = models.find(db, project.id, name)
    if model is None:
        raise CliError(f"there is no model '{name}'. {models.there_are(db, project.id)}")
    folder = _folder(model)
    found = {
        "name": model.name,
        "base": model.base,
        "folder": model.folder if folder is None else str(folder),
        "job": model.job_id,
        "methods": model.methods,
        "cannot_show": model.cannot_show,
        "origin": model.origin,
        "aliases": bases.aliases_of(db, model.name),
        "jobs": bases.jobs_of(db, model.name),
    }
    return found, folder


def _folder(model: Model) -> Path | None:
    from app.storage import get_storage

    if model.folder is not None:
        return Path(model.folder) if Path(model.folder).is_dir() else None
    config = get_storage().local_path(f"{model.storage_key}/model/config.json")
    return None if config is None or not config.is_file() else config.parent


def _inspected(folder: Path | None) -> dict[str, Any]:
    """Returns what the files say, None for each where they are not here or cannot be asked."""
    from app.inspection import InspectionError, inspect
    from app.models.folders import TRIAL

    names = ("architecture", "model_type", "size", "dtypes", "variables", "family", "path", "reason")
    unknown: dict[str, Any] = dict.fromkeys(names)
    if folder is None:
        return unknown | {"not_inspected": "its files are not on this machine"}
    try:
        found = inspect("facts", limits=TRIAL, folder=str(folder))
    except InspectionError as problem:
        return unknown | {"not_inspected": str(problem)}
    return unknown | {name: found[name] for name in names} | {"not_inspected": None}


def _memory(size: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns bytes at the peak, and those that are certain, by device and use."""
    if size is None:
        return None
    known = ModelSize(**size)
    return {
        device: {
            use: {"total": need.total, "certain": need.certain}
            for use, need in memory.by_use(known, device).items()
        }
        for device in DEVICES
    }


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Name", told["name"]
    yield from _facts(told)
    yield "Chat template reads", ", ".join(told["variables"] or ["not known"])
    if (family := told["family"]) is not None:
        yield "Family", family["template"] or "none that is known by name"
        yield "Thoughts", family["thoughts"]
        yield "Tool calls", ". ".join(filter(None, (family["calls"], family["mend"])))
    yield "Does not show", _gaps(told["cannot_show"])
    yield "Methods", ", ".join(told["methods"] or ["all"])
    yield from _origin(told)
    yield from _memory_lines(told["memory"])
    yield "Aliases", ", ".join(told["aliases"]) or "none"
    jobs = ", ".join(f"{count} {status}" for status, count in told["jobs"].items())
    yield "Jobs", jobs or "none"


def _facts(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if told["not_inspected"]:
        yield "Not inspected", told["not_inspected"]
        return
    yield "Architecture", f"{told['architecture']} ({told['model_type']})"
    size = told["size"]
    if size is not None:
        yield "Parameters", f"{size['parameters']:,} ({in_short(size['parameters'])})"
        yield "Context", f"{size['context']:,} tokens"
        yield "Vocabulary", f"{size['vocabulary']:,} tokens"
        yield "Layers, width", f"{size['layers']}, {size['hidden']:,}"
    yield "Stored as", ", ".join(told["dtypes"])
    why = f", because {told['reason']}" if told["reason"] else ""
    yield "Path", f"{told['path']}{why}"


ORIGIN = {
    "On the hub": "hub",
    "Source": "source",
    "Revision": "revision",
    "Licence": "licence",
    "Template given": "template",
}
"""What is told of where a model came from, by its title."""


def _gaps(cannot_show: list[str] | None) -> str:
    return "not known" if cannot_show is None else in_words(cannot_show) or "nothing is left out"


def _origin(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if told["base"]:
        yield "Tuned from", f"{told['base']} by {told['job']}"
    origin = told["origin"]
    yield "Folder", told["folder"] or "in remote storage"
    if origin is None:
        return
    if origin["folder"] != told["folder"]:
        yield "Made of", origin["folder"]
    for title, name in ORIGIN.items():
        if origin.get(name):
            yield title, origin[name]
    yield "Added", f"{origin['added_at']}" + (f" by {origin['added_by']}" if origin["added_by"] else "")
    for file, digest in origin["weights"].items():
        yield "Weights", f"{file} sha256 {digest}"


def _memory_lines(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    step = (
        f"{memory.USUAL_GROUPS} prompts of {memory.USUAL_SAMPLES} answers, {memory.USUAL_TOKENS} tokens each,"
        f" {memory.SENSIBLE_TOKENS:,} tokens a pass on a GPU"
    )
    yield "Memory at the peak", f"on a CPU, on a GPU ({step}; serving {memory.USUAL_STREAMS} whole contexts)"
    for use in found[DEVICES[0]]:
        yield f"  {use}", ", ".join(f"{found[device][use]['total'] / 2**30:,.1f} GiB" for device in DEVICES)
