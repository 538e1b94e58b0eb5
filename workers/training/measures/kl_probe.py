"""The exact KL of a policy to where it started, on answers that it writes to a fixed set of prompts.

What is estimated is the mean over these prompts, not over all that could be asked: with two answers or more
to each, the error is that of the answers alone (strata: Cochran 1977, Sampling Techniques, 5.3). With one
answer each it cannot be told from the prompts' own differences; the error over prompts that is then given is
too large rather than too small.

Answers are drawn until the error is small enough, with the same random numbers at every checkpoint. How many
are drawn follows from those so far, so the mean of all has a bias: a skewed sample that looks small looks
sure as well, and ends early. Simulated (4,000 probes each of 8 prompts with log-normal answers, KL from 0.02
to 1, answers that vary by 30 to 80 %), it is at most 3 % of the KL and 0.3 standard errors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.types import Completion, Group, Prompt
from workers.training.evaluate import Estimate
from workers.training.model.policy import Policy
from workers.training.passes.forward import (
    Batch,
    PackedCompletion,
    batches_for,
    completion_states,
    output_head,
    per_completion,
    token_kl,
)
from workers.training.passes.micro_batches import fillers
from workers.training.sampling.rollout import Sampling, sample_groups

RELATIVE_ERROR, ABSOLUTE_ERROR = 0.05, 0.005
"""The standard error that is small enough: a twentieth of the KL, or so many nats per token where that is
more (below 0.1). Chosen, not measured: a twentieth of the distances that are told apart by eye.
"""

FIRST_ANSWERS = 2
"""Answers to each prompt before it is asked how many are needed. It follows from the variance, which takes
two.
"""

LEAST_ANSWERS, LEAST_TOKENS = 16, 512
"""Answers to all prompts, and their tokens, before an error is believed. Of the few short answers that a
policy of little entropy writes, most are alike, and their error seems small whatever it is. Measured in the
test by enumeration: of 40 intervals 33 covered with 18 answers of 4 tokens, 39 with 512 tokens.
"""

MARGIN = 1.1
"""How much further than needed the next answers aim, because the variance so far is uncertain by a quarter
(16 answers). Chosen, not measured.
"""


class Kl(NamedTuple):
    """Holds how far a policy is from a reference, by the same answers in three ways.

    Attributes:
        per_token: nats per token: the mean over answers of each one's mean; all answers weigh the same.
        pooled: nats per token: all tokens weigh the same.
        per_answer: nats per answer: the KL of the whole answers' distributions.
    """

    per_token: Estimate
    pooled: Estimate
    per_answer: Estimate


class ProbeKl(NamedTuple):
    """Holds the distance to the start and, of a run that started from a tuned model, to that one's base."""

    start: Kl
    origin: Kl | None = None


class AnswerKl(NamedTuple):
    """Holds the sum over an answer's tokens of the exact KL, in nats, and their number."""

    total: float
    n_tokens: int


Reference = Callable[[], AbstractContextManager[Any]]
"""Gives a model to compare with, to run without gradient."""


@torch.no_grad()
def probe_kl(
    policy: Policy,
    probe: Sequence[Prompt],
    config: TrainConfig,
    world: World = ALONE,
    *,
    answers: Sequence[Group] = (),
    origin: Any | None = None,
) -> ProbeKl:
    """Measures the exact KL(policy || start) on up to `kl_probe_samples` answers to each probe prompt.

    Answers are sampled from the policy at temperature 1; the KL is over the whole vocabulary at each of their
    tokens, at temperature 1 as well whatever the training's temperature, and not over the tokens that a
    response format allows: what is measured is how far the model has moved. Each process measures a share of
    the prompts.

    Args:
        policy: what is measured; its sampling copy follows its weights.
        probe: the prompts.
        config: says how long an answer may get, and how many there may be.
        world: its processes.
        answers: groups of this very policy, drawn at temperature 1 with the run's lengths and stops, from
            which those to probe prompts are taken before new ones are drawn.
        origin: the model that the starting policy was tuned from.
    """
    mine = world.slice(probe)
    source = _Answers(policy, mine, config, world.slice(_given(probe, answers)))
    references: list[Reference] = [policy.reference]
    if origin is not None:
        references.append(lambda: nullcontext(origin))
    scorer = _Scorer(policy, references, probe[0], world)
    found: list[list[list[AnswerKl]]] = [[[] for _ in mine] for _ in references]
    have, wanted, kls = 0, first_answers(len(probe), config.kl_probe_samples), []
    while have < wanted:
        taken = source.take(have, wanted)
        packed = [PackedCompletion(p, c) for p, more in zip(mine, taken, strict=True) for c in more]
        for so_far, new in zip(found, scorer.kls(packed), strict=True):
            _append(so_far, new)
        have = wanted
        everywhere = [world.merge(of_prompts) for of_prompts in found]
        kls = [estimate_kl(of_prompts) for of_prompts in everywhere]
        wanted = answers_wanted(everywhere[0], kls[0].per_token, config.kl_probe_samples)
    return ProbeKl(*kls)


def _append(prompts: Sequence[list[AnswerKl]], new: Sequence[AnswerKl]) -> None:
    """Adds new answers, as many for each prompt and in their order, to those there are."""
    each = len(new) // max(len(prompts), 1)
    for i, kls in enumerate(prompts):
        kls += new[i * each : (i + 1) * each]


def first_answers(n_prompts: int, most: int) -> int:
    """Returns how many answers each prompt gets before it is asked how many are needed."""
    return min(most, max(FIRST_ANSWERS, -(-LEAST_ANSWERS // n_prompts)))


def answers_wanted(prompts: Sequence[Sequence[AnswerKl]], found: Estimate, most: int) -> int:
    """Returns how many answers each prompt should have: as many as it has, where the error is small."""
    have = len(prompts[0])
    n_tokens = sum(kl.n_tokens for kls in prompts for kl in kls)
    wanted = max(have, math.ceil(have * LEAST_TOKENS / n_tokens))
    excess = (found.stderr or 0.0) / max(RELATIVE_ERROR * found.mean, ABSOLUTE_ERROR)
    if excess > 1:
        wanted = max(wanted, have + 1, math.ceil(MARGIN * have * min(excess, most) ** 2))
    return min(most, wanted)


def estimate_kl(prompts: Sequence[Sequence[AnswerKl]]) -> Kl:
    """Returns the means over the answers, as many to each prompt, with their standard errors."""
    means = [[kl.total / kl.n_tokens for kl in kls] for kls in prompts]
    totals = [[kl.total for kl in kls] for kls in prompts]
    flat = [kl for kls in prompts for kl in kls]
    length = math.fsum(kl.n_tokens for kl in flat) / len(flat)
    pooled = math.fsum(kl.total for kl in flat) / (length * len(flat))
    # A ratio of two means varies as its residuals do (Cochran 1977, 2.11).
    residuals = stratified([[(kl.total - pooled * kl.n_tokens) / length for kl in kls] for kls in prompts])
    return Kl(stratified(means), Estimate(pooled, residuals.stderr, len(flat)), stratified(totals))


def stratified(prompts: Sequence[Sequence[float]]) -> Estimate:
    """Returns the mean of values, as many from each prompt, and its standard error.

    The error is that of the answers to these prompts. With one answer each it is over prompts, and of a
    single one not known.
    """
    values = [value for of_prompt in prompts for value in of_prompt]
    mean = math.fsum(values) / len(values)
    strata = prompts if len(prompts[0]) > 1 else [values]
    if len(values) < 2:
        return Estimate(mean, None, len(values))
    variance = math.fsum(_spread(stratum) for stratum in strata) / (len(values) - len(strata))
    return Estimate(mean, math.sqrt(variance / len(values)), len(values))


def _spread(values: Sequence[float]) -> float:
    """Returns the sum of the squared distances from the mean."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _given(probe: Sequence[Prompt], groups: Sequence[Group]) -> list[tuple[Completion, ...]]:
    """Returns the answers that groups hold to each prompt of the whole probe; no group serves two prompts."""
    there: defaultdict[tuple[int, ...], list[tuple[Completion, ...]]] = defaultdict(list)
    for group in groups:
        there[group.prompt.tokens].append(group.completions)
    return [there[p.tokens].pop(0) if there[p.tokens] else () for p in probe]


class _Answers:
    """Gives answers to prompts: first those that were sampled already, then new ones."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        config: TrainConfig,
        there: Sequence[tuple[Completion, ...]],
    ) -> None:
        """`there` are the answers to each prompt that were sampled already."""
        self._policy = policy
        self._prompts = prompts
        self._config = config
        self._there = there

    def take(self, first: int, end: int) -> list[list[Completion]]:
        """Returns answers `first` to `end` - 1 to each prompt."""
        taken = [list(completions[first:end]) for completions in self._there]
        short = [i for i, completions in enumerate(taken) if len(completions) < end - first]
        for i, group in zip(short, self._draw(short, first, end), strict=True):
            taken[i] += group.completions[len(taken[i]) :]
        return taken

    def _draw(self, chosen: Sequence[int], first: int, end: int) -> list[Group]:
        """Samples anew. Each first answer has random numbers of its own, the same ones every time."""
        config = self._config
        sampling = Sampling(
            samples=end - first,
            max_tokens=config.max_completion_tokens,
            temperature=1.0,
            key=("probe", config.measuring_seed, first) if first else ("probe", config.measuring_seed),
            stop=config.stop,
            grammar=self._policy.grammar,
            reader=self._policy.reader,
            thinking_tokens=config.max_thinking_tokens,
        )
        return sample_groups(self._policy, [self._prompts[i] for i in chosen], sampling)


class _Scorer:
    """Computes the KL of answers to each reference; every process makes the same number of passes."""

    def __init__(
        self,
        policy: Policy,
        references: Sequence[Reference],
        filler: Prompt,
        world: World,
    ) -> None:
        self._policy = policy
        self._references = references
        self._filler = filler
        self._world = world

    def kls(self, completions: Sequence[PackedCompletion]) -> list[list[AnswerKl]]:
        """Returns for each reference what it makes of each answer."""
        return self._policy.passes.attempt(lambda: self._kls(completions))

    def _kls(self, completions: Sequence[PackedCompletion]) -> list[list[AnswerKl]]:
        passes = self._policy.passes
        batches = batches_for(self._policy.model, completions, passes.most, self._policy.device)
        empty = fillers(self._policy, self._filler, len(batches), self._world)
        found: dict[tuple[int, int], AnswerKl] = {}
        for batch in batches:
            passes.begin(batch.n_forwarded, len(batch.indices))
            for k, values in enumerate(self._token_kls(batch)):
                for i, of_answer in zip(batch.indices, per_completion(values, batch), strict=True):
                    found[k, i] = AnswerKl(float(of_answer.double().sum()), len(of_answer))
        for batch in empty:
            self._token_kls(batch)
        answers = range(len(completions))
        return [[found[k, i] for i in answers] for k in range(len(self._references))]

    def _token_kls(self, batch: Batch) -> list[Tensor]:
        """Returns the exact KL to each reference at each of a batch's completion tokens, (N,) nats."""
        states = completion_states(self._policy.measured_model, batch)
        head = output_head(self._policy.measured_model)
        found = []
        with ExitStack() as until_all_are_run:  # leaving a sharded one lets go of the policy's head too
            for reference in self._references:
                model = until_all_are_run.enter_context(reference())
                ref_states = completion_states(model, batch)
                found.append(token_kl(states, head, ref_states, output_head(model)))
        return found
