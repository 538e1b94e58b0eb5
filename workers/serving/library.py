"""Models by name: where their files lie, and the few that are in memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from app.db import unit_of_work
from app.disk import scratch_folder
from app.errors import NotFound, ServerError
from app.files.integrity import StoredFileDamaged
from app.models import service as models
from app.settings import COPIES, Settings
from workers.base_models import local_folder

if TYPE_CHECKING:
    from workers.training.model.base_model import BaseModel
    from workers.training.model.grammar import Grammar

log = structlog.get_logger(__name__)

MAX_GRAMMARS = 64
"""Response formats that a model keeps compiled. Chosen, not measured."""


class ModelFiles(NamedTuple):
    """Says where a model's files are: a folder of this machine, or a prefix in storage."""

    name: str
    folder: str | None
    storage_key: str | None


class LoadedModel:
    """Holds a model in memory, and the response formats that were asked of it."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._grammars: OrderedDict[str, Grammar | None] = OrderedDict()

    def grammar(self, response_format: Mapping[str, Any] | None) -> Grammar | None:
        """Returns the grammar of a response format; None for plain text. Raises `GrammarFailed`."""
        from workers.training.model.grammar import compile_grammar

        key = json.dumps(response_format)
        if key not in self._grammars:
            base = self.base
            made = compile_grammar(response_format, base.tokenizer, base.model, base.end_ids)
            self._grammars[key] = made
            if len(self._grammars) > MAX_GRAMMARS:
                self._grammars.popitem(last=False)
        self._grammars.move_to_end(key)
        return self._grammars[key]


class Library:
    """Finds and holds models. `find` may be called from any thread, `load` from one."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.sampler_models
        self._device = settings.sampler_device
        self._threads = settings.trainer_threads
        self._copies = settings.data_dir / COPIES
        self._loaded: OrderedDict[ModelFiles, LoadedModel] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """Returns the models in memory, the one used last at the end."""
        return [files.name for files in self._loaded]

    def find(self, project_id: str, name: str) -> ModelFiles:
        """Returns where the model lies that a project calls so. Raises `NotFound`."""
        with unit_of_work() as db:
            model = models.get(db, project_id, name)
            return ModelFiles(model.name, model.folder, model.storage_key)

    def load(self, files: ModelFiles) -> LoadedModel:
        """Returns the model, read if need be; the one that was not used for longest makes room.

        Raises `NotFound` if its files are gone, or `ServerError` if they cannot be used.
        """
        if files not in self._loaded:
            while len(self._loaded) >= self._most:
                self._forget(next(iter(self._loaded)))
            self._loaded[files] = LoadedModel(self._read(files))
            log.info("model_loaded", model=files.name)
        self._loaded.move_to_end(files)
        return self._loaded[files]

    def _read(self, files: ModelFiles) -> BaseModel:
        import torch

        from workers.training.base.errors import ModelInvalid
        from workers.training.model.base_model import load_base

        if self._threads:
            torch.set_num_threads(self._threads)
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._copies.mkdir(parents=True, exist_ok=True)
            with scratch_folder("", within=self._copies) as scratch:
                return load_base(local_folder(files, scratch / "model"), torch.device(device))
        except FileNotFoundError:
            message = f"The files of the model '{files.name}' are gone."
            raise NotFound(message, param="model", code="model_not_found") from None
        except (ModelInvalid, StoredFileDamaged) as problem:
            raise ServerError(str(problem)) from None

    def _forget(self, files: ModelFiles) -> None:
        del self._loaded[files]
        log.info("model_forgotten", model=files.name)
