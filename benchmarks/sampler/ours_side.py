"""Our side: `python -m benchmarks.sampler.ours_side MODEL_FOLDER`.

`how` is "engine", the sampler as a service without its HTTP, or "groups", the sampler of training.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from app.settings import Settings
from benchmarks.sampler.lines import answer
from workers.serving.engine import Engine
from workers.serving.library import Library
from workers.serving.requests import Event, Failed, ModelFiles, Options, Request, Started
from workers.training.base.types import Prompt
from workers.training.model.base_model import BaseModel, load_base
from workers.training.sampling.rollout import Sampling, sample_groups


def without_end(base: BaseModel) -> BaseModel:
    """Returns a model whose completions go on: the only token that ends one is never sampled."""
    return replace(base, end_ids=(base.vocabulary,))


class UnendingLibrary(Library):
    def load(self, files: ModelFiles) -> BaseModel:
        return without_end(super().load(files))


class Listener:
    """Notes when each token of a request came."""

    def __init__(self, tokens: int) -> None:
        self.times: list[float] = []
        self.over = threading.Event()
        self.failed: Failed | None = None
        self._tokens = tokens

    def __call__(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.failed = event
            self.over.set()
        elif not isinstance(event, Started):
            self.times += [time.perf_counter()] * len(event)
            if len(self.times) >= self._tokens:
                self.over.set()


class Side:
    def __init__(self, folder: Path, data: Path) -> None:
        settings = Settings(
            database_url="postgresql://nobody@nowhere/none",
            broker_url="memory://",
            data_dir=data,
            sampler_device="cpu",
            trainer_threads=1,
        )
        self._engine = Engine(UnendingLibrary(settings), settings)
        self._files = ModelFiles("measured", str(folder), None)
        self._base = without_end(load_base(folder))
        self._calls = 0

    def sample(self, prompts: Sequence[Sequence[int]], tokens: int, how: str) -> Mapping[str, Any]:
        self._calls += 1
        return self._by_engine(prompts, tokens) if how == "engine" else self._by_groups(prompts, tokens)

    def _by_groups(self, prompts: Sequence[Sequence[int]], tokens: int) -> Mapping[str, Any]:
        rows = [Prompt(i, {"messages": []}, tuple(prompt)) for i, prompt in enumerate(prompts)]
        groups = sample_groups(self._base, rows, Sampling(1, tokens, 1.0, ("bench", self._calls)))
        return {"tokens": sum(len(completion.tokens) for group in groups for completion in group.completions)}

    def _by_engine(self, prompts: Sequence[Sequence[int]], tokens: int) -> Mapping[str, Any]:
        listeners = [Listener(tokens) for _ in prompts]
        start = time.perf_counter()
        for i, (prompt, listener) in enumerate(zip(prompts, listeners, strict=True)):
            seed = self._calls * len(prompts) + i
            self._engine.submit(Request(self._files, prompt, 1, Options(tokens), seed, f"key{i}", listener))
        for listener in listeners:
            listener.over.wait()
            if listener.failed is not None:
                raise listener.failed.error
        gaps = sorted(b - a for listener in listeners for a, b in pairwise(listener.times))
        return {
            "tokens": sum(len(listener.times) for listener in listeners),
            "first": max(listener.times[0] for listener in listeners) - start,
            "p99": gaps[int(len(gaps) * 0.99)],
        }


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as data:
        answer(Side(Path(sys.argv[1]), Path(data)).sample, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
