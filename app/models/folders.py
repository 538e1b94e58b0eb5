"""Reads a folder that is to become a base model, and tries its chat template in a child process."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    untried: str | None
    cannot_show: list[str] | None


def check_model_folder(folder: Path) -> None:
    """Raises `BaseModelInvalid` with what is wrong with the files of a model folder."""
    try:
        check_folder(folder)
    except ModelFolderInvalid as problem:
        raise BaseModelInvalid(f"{folder} cannot be used: {problem}.") from None


def try_model_folder(folder: Path, limits: ChildLimits = TRIAL, command: Sequence[str] = COMMAND) -> Trial:
    """Loads config and tokenizer of a checked folder and renders its chat template, in a child process.

    It takes seconds. `command` is the program that knows the inspections. Raises `BaseModelInvalid`.
    """
    cannot_show: list[str] = []
    try:
        found = inspect_in_child("model", limits=limits, command=command, folder=str(folder))
        fault, cannot_show = found["fault"], found["cannot_show"]
    except TrainExtraMissing as missing:
        return Trial(f"{missing}. Until then its chat template is first tried when a job is validated", None)
    except (InspectionTimedOut, InspectionOutOfMemory) as problem:
        fault = f"its tokenizer and chat template do not come to an end: {problem}"
    except InspectionError as problem:
        fault = f"its tokenizer and chat template cannot be tried: {problem}"
    if fault is not None:
        raise BaseModelInvalid(f"{folder} cannot be used: {fault.rstrip('.')}.")
    return Trial(None, cannot_show)
