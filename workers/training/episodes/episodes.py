"""The episodes of a run: its environment, their limits, and the threads on which replies are waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from methods.train_config import NAMED
from workers.training.base.errors import ModelInvalid
from workers.training.base.types import Prompt
from workers.training.episodes.environment import Environment
from workers.training.episodes.limits import EpisodeLimits
from workers.training.episodes.plain import PlainReader
from workers.training.episodes.play import Play, TakesApart
from workers.training.rendering.parts import PartsReader
from workers.training.sampling.rollout import SampledModel

THREADS = 64
"""Episodes whose replies are waited for at the same time, in each process. Chosen, not measured: a step of
the usual size, so that no reply waits for another; a thread that waits costs next to nothing.
"""


class Limited(Protocol):
    """Is the part of a run's config that bounds episodes, and names what may be called in them."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Returns the names of the tools."""

    @property
    def environment(self) -> str | None:
        """Returns who replies to turns that call nothing."""

    @property
    def max_episode_steps(self) -> int | None:
        """Returns the most turns."""

    @property
    def max_completion_tokens(self) -> int:
        """Returns the most tokens that may be sampled."""


class Episodes:
    """Plays a run's episodes. Close it at the end."""

    def __init__(
        self, environment: Environment, reader: PartsReader | None, config: Limited, model: SampledModel
    ) -> None:
        """Raises `ModelInvalid` for a model whose calls nobody can read, where there are tools."""
        if config.tools and (reader is None or not reader.calls_tools):
            raise ModelInvalid(
                "The model's chat template does not tell how it calls tools, so its calls cannot be read."
                " Use a model whose template is known, or leave the tools out."
            )
        self._environment = environment
        self._reader: TakesApart = reader or PlainReader(model.tokenizer, model.end_ids)
        self._config = config
        self._model = model
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="episode")

    def play(self, prompts: Sequence[Prompt], alive: Callable[[], None] = lambda: None) -> Play:
        """Returns the turns of one call of the sampler."""
        limits = EpisodeLimits(
            self._config.max_episode_steps or 1, self._config.max_completion_tokens, self._model.context
        )
        model = self._model
        return Play(
            self._environment,
            model.tokenizer,
            self._reader,
            prompts,
            limits,
            model.end_ids,
            self._threads,
            alive,
            follows=self._config.environment == NAMED,
        )

    def close(self) -> None:
        """Waits for nobody: what is still asked is not needed any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
