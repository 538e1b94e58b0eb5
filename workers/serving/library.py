"""Models by name: where their files lie, what their tokenizers know, and their weights."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from app.cards import service as cards
from app.db import unit_of_work
from app.disk import scratch_folder
from app.errors import NotFound, ServerError
from app.files.integrity import StoredFileDamaged
from app.models import service as models
from app.settings import COPIES, Settings
from methods.model_files.precision import QUANTISED
from workers.base_models import local_adapter, local_folder
from workers.devices.sampler_part import fitting, share_of
from workers.serving.requests import ModelFiles

if TYPE_CHECKING:
    from workers.serving.parts.model_parts import ModelParts
    from workers.training.model.adapter_rows import Adapter
    from workers.training.model.base_model import BaseModel
    from workers.training.model.grammar import Grammar
    from workers.training.model.texts import TextSide

log = structlog.get_logger(__name__)

MAX_GRAMMARS = 64
"""Grammars that a model keeps compiled. Chosen, not measured."""
MAX_TEXTS = 64
"""Models whose tokenizers stay in memory. Chosen, not measured."""


class Texts:
    """Is what is known of a model without its weights. Any thread may use it."""

    def __init__(self, side: TextSide) -> None:
        self.tokenizer = side.tokenizer
        self.end_ids = side.end_ids
        self.context = side.context
        self.vocabulary = side.vocabulary
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def grammar(self, text: str | None) -> Grammar | None:
        """Returns a grammar that is held behind the thoughts; None for none. Raises `GrammarFailed`."""
        from workers.training.model.grammar import Grammar

        if text is None:  # it waits for no grammar that is being compiled
            return None
        with self._lock:
            if text not in self._grammars:
                parts = self.parts
                reader = None if parts is None else parts.reader
                made = Grammar(text, self.tokenizer, self.vocabulary, self.end_ids, reader)
                self._grammars[text] = made
                if len(self._grammars) > MAX_GRAMMARS:
                    self._grammars.popitem(last=False)
            self._grammars.move_to_end(text)
            return self._grammars[text]

    @cached_property
    def parts(self) -> ModelParts | None:
        """What takes completions apart; None where the model's family has neither thoughts nor calls."""
        from workers.serving.parts.model_parts import parts_of

        return parts_of(self.tokenizer, self.end_ids)


class Library:
    """Finds models and reads them. Any thread may call it; it keeps texts, and no weights."""

    def __init__(self, settings: Settings) -> None:
        self._device = settings.sampler_device
        self._share = share_of(settings)
        self._threads = settings.trainer_threads
        self._copies = settings.data_dir / COPIES
        self._texts: OrderedDict[ModelFiles, Texts] = OrderedDict()
        self._reading = threading.Lock()

    def find(self, project_id: str, name: str) -> ModelFiles:
        """Returns where the model lies that a project calls so. Raises `NotFound`."""
        with unit_of_work() as db:
            model = models.get(db, project_id, name)
            found = ModelFiles(model.name, model.folder, model.storage_key)
            base = models.find(db, project_id, model.base) if model.base is not None else None
            if base is None or base.folder is None or model.job_id is None:
                return found
            weights = cards.weights_of_base(db, model.job_id)
            # An adapter of a quantised base is another model beside the base as it is stored.
            if not weights or cards.base_precision(db, model.job_id) in QUANTISED:
                return found
            return found._replace(adapter_of=ModelFiles(base.name, base.folder, None), base_weights=weights)

    def texts(self, files: ModelFiles) -> Texts:
        """Returns what is known of a model without its weights, read if need be.

        Raises `NotFound` if its files are gone, or `ServerError` if they cannot be used.
        """
        with self._reading:
            if files not in self._texts:
                self._texts[files] = self._read_texts(files)
                if len(self._texts) > MAX_TEXTS:
                    self._texts.popitem(last=False)
            self._texts.move_to_end(files)
            return self._texts[files]

    def _read_texts(self, files: ModelFiles) -> Texts:
        from workers.training.model.texts import read_texts

        with self._faults(files), self._scratch() as scratch:
            return Texts(read_texts(local_folder(files, scratch / "model", weights=False)))

    def load(self, files: ModelFiles) -> BaseModel:
        """Returns a model with its weights. Raises `NotFound` or `ServerError` as `texts` does."""
        import torch

        from workers.training.base.device_memory import limit_share
        from workers.training.model.base_model import load_base

        if self._threads:
            torch.set_num_threads(self._threads)
        on_gpu = torch.cuda.is_available() if self._device == "auto" else self._device == "cuda"
        device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        limit_share(device, self._share)
        with self._faults(files), fitting(files.name, self._share), self._scratch() as scratch:
            found = load_base(local_folder(files, scratch / "model"), device)
        log.info("model_loaded", model=files.name)
        return found

    def load_adapter(self, files: ModelFiles, base: BaseModel) -> Adapter:
        """Returns the adapter of a tuned model, whose base is in memory.

        Raises `NotSeparable` if the tuned model must be loaded whole, `NotFound` or `ServerError` as `texts`.
        """
        from workers.training.model.adapter_files import NotSeparable, read_adapter

        assert files.adapter_of is not None
        with self._faults(files), self._scratch() as scratch:
            if not _has_weights(base.folder, dict(files.base_weights)):
                raise NotSeparable(f"Its base '{files.adapter_of.name}' is no longer what it was.")
            folder = local_adapter(files, scratch / "adapter")
            if folder is None:
                raise NotSeparable("It has no adapter.")
            try:
                found = read_adapter(folder, base.model)
            except (OSError, ValueError, KeyError, AttributeError) as problem:
                raise ServerError(
                    f"The adapter of the model '{files.name}' cannot be used: {problem}"
                ) from None
        log.info("adapter_loaded", model=files.name)
        return found

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        self._copies.mkdir(parents=True, exist_ok=True)
        with scratch_folder("", within=self._copies) as scratch:
            yield scratch

    @contextmanager
    def _faults(self, files: ModelFiles) -> Iterator[None]:
        from workers.training.base.errors import ModelInvalid

        try:
            yield
        except FileNotFoundError:
            message = f"The files of the model '{files.name}' are gone."
            raise NotFound(message, param="model", code="model_not_found") from None
        except (ModelInvalid, StoredFileDamaged) as problem:
            raise ServerError(str(problem)) from None


def _has_weights(folder: Path, weights: Mapping[str, str]) -> bool:
    """Says whether the weights in a folder are these, by the sha256 of each file."""
    there = sorted(folder.glob("*.safetensors"))
    return [file.name for file in there] == sorted(weights) and all(
        _sha256(file) == weights[file.name] for file in there
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
