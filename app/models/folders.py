"""Reads a folder that is to become a base model, and tries its chat template in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from app.inspection import (
    COMMAND,
    ChildLimits,
    InspectionError,
    InspectionOutOfMemory,
    InspectionTimedOut,
    TrainExtraMissing,
)
from app.inspection import inspect as inspect_in_child
from methods.model_files.folder import ModelFolderInvalid, check_folder
from methods.model_files.numbers import not_finite_told, read_numbers
from methods.model_files.weights import weight_files

TRIAL = ChildLimits(seconds=60.0, memory_bytes=4 * 2**30)
"""What the trial of a tokenizer and its template may take. Loading transformers took up to 10 s on two busy
cores; the largest published tokenizers take half a GiB."""


class BaseModelInvalid(Exception):
    """A folder cannot serve as a base model; the text says why and what to do."""


class Trial(NamedTuple):
    """Holds what came of trying a folder.

    Attributes:
        untried: why nothing could be tried, where transformers is not installed.
        cannot_show: what its chat template cannot show, by the names of methods/template_gaps.py.
        family: what of it is understood: `template`, `thoughts`, `calls`, and how to `mend` it.
    """

    untried: str | None
    cannot_show: list[str] | None
    family: Mapping[str, str | None] | None = None


def check_model_folder(folder: Path, *, with_template: bool = True) -> None:
    """Raises `BaseModelInvalid` with what is wrong with the files of a model folder.

    Without `with_template` its chat template is not looked at: another one takes its place.
    """
    try:
        check_folder(folder, with_template=with_template)
    except ModelFolderInvalid as problem:
        raise BaseModelInvalid(f"{folder} cannot be used: {problem}.") from None


def hashes_of_weights(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each file of a checked folder's weights, by its name; reads every number once.

    Raises `BaseModelInvalid` for weights that hold NaN or an infinity.
    """
    read = {file.name: read_numbers(file) for file in weight_files(folder)}
    if faults := [
        not_finite_told(name, found.not_finite) for name, found in read.items() if found.not_finite
    ]:
        raise BaseModelInvalid(f"{folder} cannot be used: {'; '.join(faults)}.")
    return {name: found.sha256 for name, found in read.items()}


def try_model_folder(folder: Path, limits: ChildLimits = TRIAL, command: Sequence[str] = COMMAND) -> Trial:
    """Loads config and tokenizer of a checked folder and renders its chat template, in a child process.

    It takes seconds. `command` is the program that knows the inspections. Raises `BaseModelInvalid`.
    """
    cannot_show: list[str] = []
    family: Mapping[str, str | None] | None = None
    try:
        found = inspect_in_child("model", limits=limits, command=command, folder=str(folder))
        fault, cannot_show, family = found["fault"], found["cannot_show"], found["family"]
    except TrainExtraMissing as missing:
        return Trial(f"{missing}. Until then its chat template is first tried when a job is validated", None)
    except (InspectionTimedOut, InspectionOutOfMemory) as problem:
        fault = f"its tokenizer and chat template do not come to an end: {problem}"
    except InspectionError as problem:
        fault = f"its tokenizer and chat template cannot be tried: {problem}"
    if fault is not None:
        raise BaseModelInvalid(f"{folder} cannot be used: {fault.rstrip('.')}.")
    return Trial(None, cannot_show, family)


def try_engine(folder: Path, limits: ChildLimits = TRIAL, command: Sequence[str] = COMMAND) -> str | None:
    """Tries in a child process whether the training engine computes a model of this config rightly.

    Returns what an operator should know: that the model takes the general path and why, or why nothing could
    be tried; None where there is nothing to say. Raises `BaseModelInvalid`.
    """
    try:
        found = inspect_in_child("engine", limits=limits, command=command, folder=str(folder))
    except InspectionError as problem:
        return f"The engine was not tried with this model: {problem}"
    if found["fault"] is not None:
        raise BaseModelInvalid(f"{folder} cannot be trained: {found['fault'].rstrip('.')}.")
    if found["untried"] is not None:
        return f"The engine was not tried with this model: {found['untried']}."
    if found["reason"] is not None:
        return f"Path: general, because {found['reason']} Training is right, and takes more time and memory."
    return None
