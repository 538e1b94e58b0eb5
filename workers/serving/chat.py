"""Chat requests to the sampler, and the completions that were sampled for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.serving.library import ModelFiles

if TYPE_CHECKING:
    from workers.training.base.types import Completion


class SamplingOptions(NamedTuple):
    """Says how to sample; requests for the same model with the same options run side by side."""

    samples: int
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    response_format: Mapping[str, Any] | None

    def key(self) -> str:
        """Returns a text that is the same for the same options."""
        return json.dumps(self)


@dataclass(frozen=True)
class SampledCompletions:
    """Holds the completions of one request; `pieces` are the texts of their tokens."""

    prompt_tokens: int
    completions: Sequence[Completion]
    pieces: Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Chat:
    """Is one request. `seed` decides the draws, whatever runs beside it."""

    files: ModelFiles
    messages: Sequence[Mapping[str, Any]]
    options: SamplingOptions
    seed: int
    result: Future[SampledCompletions]
