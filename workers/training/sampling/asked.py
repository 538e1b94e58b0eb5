"""What the sampler is asked: from which model, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from workers.training.base.randomness import keyed_seed
from workers.training.base.types import Completion, Prompt
from workers.training.model.grammar import Grammar
from workers.training.rendering.parts import PartsReader
from workers.training.sampling.turns import Turns
from workers.training.sampling.waiting import Beginning, SamplerLimits

OnCompletion = Callable[[int, int, Completion], None]


class SampledModel(Protocol):
    """Is what is sampled from: a policy, or a model as it lies on disk."""

    @property
    def rollout_model(self) -> Any:
        """Returns the causal model."""

    @property
    def tokenizer(self) -> Any:
        """Returns the model's tokenizer."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Returns every token id that ends a completion."""

    @property
    def context(self) -> int:
        """Returns the most tokens of prompt and completion together."""

    @property
    def device(self) -> torch.device:
        """Returns where the model computes."""


@dataclass(frozen=True)
class Sampling:
    """Says how to sample, and names the random numbers.

    Attributes:
        samples: completions for each prompt (G).
        max_tokens: a completion is cut here, or where the context ends.
        temperature: 0 is greedy; logprobs are then those at temperature 1.
        key: names the random stream, such as ("train", seed, step); row and sample are added to it.
        top_p: draw among the most likely tokens that together reach this probability. Logprobs stay those of
            the whole distribution at the temperature, so training samples with 1.
        stop: texts that end a completion. Its text ends before the first of them; its tokens go up to and
            include the one that completed it.
        grammar: which tokens may come next. Logprobs are those among the allowed tokens.
        reader: takes completions apart; those of episodes are left to `Turns`.
        thinking_tokens: thoughts are closed after so many tokens, in a family that `reader` knows to think.
    """

    samples: int
    max_tokens: int
    temperature: float
    key: tuple[int | str, ...]
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    reader: PartsReader | None = None
    thinking_tokens: int | None = None


class Call(NamedTuple):
    """Is what one call asks for. (N,) arrays are by row, the number of a completion in the call."""

    policy: SampledModel
    model: Any
    prompts: Sequence[Prompt]
    sampling: Sampling
    turns: Turns | None
    limits: SamplerLimits

    @property
    def longest_prompt(self) -> int:
        """Returns the tokens of the longest prompt."""
        return max(len(prompt.tokens) for prompt in self.prompts)

    @property
    def longest_sequence(self) -> int:
        """Returns the tokens of the longest prompt and completion together, at most."""
        if self.turns is not None:
            return self.policy.context
        return max(len(prompt.tokens) for prompt in self.prompts) + int(self.longest.max())

    @property
    def seeds(self) -> NDArray[np.uint64]:
        """Returns the seed of each row's random numbers, (N,)."""
        rows, samples = [prompt.row for prompt in self.prompts], range(self.sampling.samples)
        keys = [keyed_seed(*self.sampling.key, row, sample) for row in rows for sample in samples]
        return np.array(keys, dtype=np.uint64)

    @property
    def beginnings(self) -> list[Beginning]:
        """Returns what the rows go on from at first."""
        G = self.sampling.samples
        return [Beginning(p.tokens, range(i * G, (i + 1) * G)) for i, p in enumerate(self.prompts)]

    @property
    def longest(self) -> NDArray[np.int64]:
        """Returns the most tokens of each row, (N,)."""
        lengths = np.array([len(prompt.tokens) for prompt in self.prompts])
        each = np.maximum(np.minimum(self.sampling.max_tokens, self.policy.context - lengths), 1)
        return np.repeat(each, self.sampling.samples)
