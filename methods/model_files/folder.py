"""Reads a model folder before anybody trusts it, and names each file that may not be in it with the reason.

It needs neither torch nor transformers, and runs nothing of the folder. Every way by which a model comes in
asks it: `cherry models add`, the start of the service, a job's validation, and the engine when it loads one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from methods.model_files import configs, pickles, weights
from methods.model_files.configs import ADAPTER, CONFIG, TOKENIZER_CONFIG, TOKENIZERS
from methods.model_files.hub_cache import snapshot_of
from methods.model_files.weights import INDEX, WEIGHTS, WeightsInvalid

MODEL = f"model{WEIGHTS}"
MODEL_INDEX = f"model{INDEX}"
MAX_FAULTS = 10
"""Faults of one folder that are told."""
MAX_FILES = 20_000
"""More files than any published model has; a home directory has more. Chosen, not measured."""


class ModelFolderInvalid(Exception):
    """Says that a folder is none that a model may be read from. `faults` each name a file and a reason."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def check_folder(folder: Path, *, with_weights: bool = True, with_template: bool = True) -> None:
    """Raises `ModelFolderInvalid` with what is wrong with a model folder, the first ten faults of it.

    Without `with_weights` they may be missing: of a model in remote storage all else is fetched first.
    Without `with_template` its chat template is not looked at: another one takes its place.
    """
    if not folder.is_dir():
        raise ModelFolderInvalid(["it is not a folder"])
    if faults := list(islice(_faults(folder, with_weights, with_template), MAX_FAULTS)):
        raise ModelFolderInvalid(faults)


def _faults(folder: Path, with_weights: bool, with_template: bool) -> Iterator[str]:
    foreign = dict(islice(_faults_of_files(folder), MAX_FAULTS))
    yield from (f"{name} {fault}" for name, fault in foreign.items())
    contents: dict[str, Any] = {}
    for name, content, fault in configs.json_files(folder):
        if fault is None:
            contents[name] = content
            yield from (f"{name} {reason}" for reason in configs.config_faults(name, content))
        elif name not in foreign:
            yield f"{name} {fault}"
    yield from _faults_of_weights(folder, contents, with_weights)
    if not (folder / CONFIG).is_file() and ADAPTER not in contents:
        yield f"{CONFIG} is missing"
    if not any((folder / name).is_file() for name in TOKENIZERS):
        yield f"the tokenizer is missing ({TOKENIZERS[0]})"
    elif with_template and (found := configs.template_fault(folder, contents.get(TOKENIZER_CONFIG, {}))):
        yield " ".join(found)


def _faults_of_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the files that may not be in the folder, wherever in it, each with the reason."""
    root = folder.resolve()
    unread: list[str] = []
    count = 0
    for place, folders, files in os.walk(root, onerror=lambda problem: unread.append(str(problem.filename))):
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            if fault := _file_fault(path, root):
                yield str(path.relative_to(root)), fault
        count += len(files)
        if count > MAX_FILES:
            yield "it", f"holds more than {MAX_FILES:,} files"
            return
    yield from ((str(Path(name).relative_to(root)), "cannot be read") for name in unread)


def _file_fault(path: Path, root: Path) -> str | None:
    try:
        if path.is_symlink() and not _is_within(path.resolve(strict=True), root):
            return "is a symbolic link out of the folder: copy the file itself (`cp -L`)"
        if path.is_dir():
            return None
        if not stat.S_ISREG(path.stat().st_mode):
            return "is neither a file nor a folder"
        if pickles.name_is_pickled(path.name):
            return "is pickled; pickled files run code when they are loaded: remove it"
        if pickles.name_is_code(path.name):
            return "is code, and no code of a model is run here: remove it"
        return None if path.suffix == WEIGHTS else pickles.foreign_kind(path)
    except (OSError, RuntimeError) as problem:  # a link to nothing, or to itself; a file without read rights
        return f"cannot be read: {getattr(problem, 'strerror', None) or problem}"


def _is_within(file: Path, root: Path) -> bool:
    """Tells whether a file belongs to a folder: it lies in it, or among the files of its place in a cache."""
    cached = snapshot_of(root)
    return file.is_relative_to(root) or (cached is not None and file.is_relative_to(cached.blobs))


def _faults_of_weights(folder: Path, contents: dict[str, Any], with_weights: bool) -> Iterator[str]:
    """Yields what files of weights and their indices claim that is not so."""
    tensors: dict[str, frozenset[str]] = {}
    for path in sorted(path for path in folder.rglob(f"*{WEIGHTS}") if path.is_file()):
        name = str(path.relative_to(folder))
        try:
            tensors[name] = weights.tensor_names(path)
        except WeightsInvalid as problem:
            yield f"{name} {pickles.foreign_kind(path) or f'cannot be used: {problem}'}"
        except OSError as problem:
            yield f"{name} cannot be read: {problem.strerror}"
    if not with_weights:
        return
    for name, index in contents.items():
        if name.endswith(INDEX):
            yield from (f"{name} {fault}" for fault in weights.index_faults(folder, index, tensors))
    chosen = contents.get(CONFIG, {}).get("transformers_weights")
    if chosen is not None:
        if str(chosen) not in {*tensors, *(name for name in contents if name.endswith(INDEX))}:
            yield f"{CONFIG} names {str(chosen)[:100]!r} as its transformers_weights, which is not here"
    elif not (folder / MODEL).is_file() and MODEL_INDEX not in contents:
        yield f"there are no *{WEIGHTS} weights ({MODEL}, or {MODEL_INDEX} with the files that it names)"
