"""Engines over tiny models that lie in folders, and listeners that gather what they tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.settings import Settings
from workers.serving.engine import Engine, Pause
from workers.serving.library import Library
from workers.serving.requests import Event, Failed, ModelFiles, Options, Request, Started, Token
from workers.serving.tickets import Ticket

SECONDS = 300
"""Chosen: kernels may have to be compiled meanwhile."""


class Listener:
    """Gathers the events of one request, and knows when it is over."""

    def __init__(self, samples: int, max_tokens: int) -> None:
        self.started: Started | None = None
        self.failed: Failed | None = None
        self.tokens: list[list[Token]] = [[] for _ in range(samples)]
        self.events = 0
        self._left = samples if max_tokens else 0
        self.over = threading.Event()
        self.first = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events += 1
        if isinstance(event, Started):
            self.started = event
        elif isinstance(event, Failed):
            self.failed = event
            self.over.set()
        else:
            self.first.set()
            for token in event:
                self.tokens[token.sample].append(token)
                self._left -= token.finish is not None
        if self._left == 0:
            self.over.set()

    def wait(self) -> Listener:
        """Waits until the request is over; raises what it failed with."""
        assert self.over.wait(SECONDS), "the request does not end"
        if self.failed is not None:
            raise self.failed.error
        return self

    def ids(self, sample: int = 0) -> list[int]:
        return [token.token for token in self.tokens[sample]]

    def logprobs(self, sample: int = 0) -> list[float]:
        return [token.logprob for token in self.tokens[sample]]


class Served:
    """Is an engine and how to ask it."""

    def __init__(self, engine: Engine, library: Library) -> None:
        self.engine = engine
        self.library = library

    def ask(
        self,
        model: ModelFiles,
        prompt: Sequence[int],
        *,
        samples: int = 1,
        seed: int = 0,
        key: str = "somebody",
        max_tokens: int = 8,
        **options: Any,
    ) -> tuple[Ticket, Listener]:
        listener = Listener(samples, max_tokens)
        asked = Request(model, prompt, samples, Options(max_tokens, **options), seed, key, listener)
        return self.engine.submit(asked), listener

    def sample(self, model: ModelFiles, prompt: Sequence[int], **options: Any) -> Listener:
        return self.ask(model, prompt, **options)[1].wait()


@contextmanager
def serving(
    tmp_path: Path, library: Library | None = None, pause: Pause = lambda _: 0.0, **changes: Any
) -> Iterator[Served]:
    made = {"database_url": "postgresql://nobody@nowhere/none", "broker_url": "memory://"}
    made |= {"data_dir": tmp_path, "sampler_device": "cpu", "trainer_threads": 1, **changes}
    settings = Settings(**made)
    library = library or Library(settings)
    engine = Engine(library, settings, pause)
    try:
        yield Served(engine, library)
    finally:
        engine.close()


def model_in(folder: Path, name: str = "tiny") -> ModelFiles:
    return ModelFiles(name, str(folder), None)
