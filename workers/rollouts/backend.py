"""Samples a run's rollouts with a vLLM server: the policy's weights go over as files, token ids come back.

Each completion is a request of its own, or each of its turns, with a seed that follows from the same key as
in the sampler of the training process, so that it is graded as soon as it ends. What answered is known by
name: an adapter (adapters.py), or a version of the base's weights (whole_weights.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
import torch

from app.table_settings import VllmEntry
from methods.train_config import TrainConfig
from workers.rollouts.adapters import Adapters
from workers.rollouts.asking import Asking, check_sampling
from workers.rollouts.carried import CarriedWeights, Carrier
from workers.rollouts.errors import ServerAway
from workers.rollouts.probe import (
    COARSE,
    MOST_APART,
    MOST_GROWN,
    ROUNDING,
    check_logprobs,
    check_policy,
    check_tokenizer,
)
from workers.rollouts.replies import By
from workers.rollouts.served import ServedBase, find_base
from workers.rollouts.vllm_client import VllmClient
from workers.rollouts.whole_weights import WholeWeights
from workers.training.base.distributed import World
from workers.training.base.errors import RunFailed
from workers.training.base.recorder import Recorder
from workers.training.base.types import Group, Prompt
from workers.training.model.policy import Policy
from workers.training.sampling.asked import OnCompletion, Sampling
from workers.training.sampling.backend import SamplingInterrupted
from workers.training.sampling.turns import Turns

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 2.0
"""The wait between two looks at a server that is away. Chosen, not measured."""
PROBED_PROMPTS = 4
REPLIES_SECONDS = 0.02
"""The wait between two looks for what an environment has replied, while completions are under way. Chosen,
not measured.
"""
STARTED = (
    "Rollouts: vLLM {version} at {url} samples this job's training completions, from {weights} for each step"
    " ({folder}). Its log-probabilities are {apart:.2g} nats from the trainer's, on average. Evaluations and"
    " the KL probe stay with the built-in sampler."
)
COARSER = (
    "Rollouts: the vLLM server rounds more than this training does, which computes in fp32: by {apart:.2g}"
    " nats on average. The importance ratios make up for it with more noise. Start it with --dtype float32 to"
    " have less."
)


class Limits(NamedTuple):
    """Says how long a server may be away, and how often it is looked at, in seconds."""

    away: float
    again: float = AGAIN_SECONDS


class VllmRollouts:
    """The rollouts of one run, in one process of its world."""

    def __init__(
        self,
        entry: VllmEntry,
        run_name: str,
        policy: Policy,
        config: TrainConfig,
        world: World,
        recorder: Recorder,
        limits: Limits,
    ) -> None:
        """`run_name` is in the names of its weights: no other run that asks this server has the same."""
        self._client = VllmClient(entry)
        self._entry = entry
        self._policy = policy
        self._config = config
        self._world = world
        self._recorder = recorder
        self._limits = limits
        carrier = Carrier(self._client, entry, run_name, policy, world)
        self._weights: CarriedWeights = (
            WholeWeights(carrier, recorder) if config.adapter == "full" else Adapters(carrier, config)
        )
        self._name = ""
        """The name of the weights that are followed."""
        self._loaded = ""
        """The weights that the server is known to have."""
        self._base: ServedBase | None = None
        """The base over there; None while the server has not been looked at."""
        self._first_apart: float | None = None
        self._away_since: float | None = None
        self._last_error = ""
        world.wait()

    def follow(self, updates: int) -> None:
        """Writes the weights where the server sees them. They are loaded when they are sampled from."""
        failure: Exception | None = None
        name = ""
        try:
            name = self._weights.write(updates)
            if self._world.is_main and self._entry.shares_gpu:
                self._quietly(self._client.wake_up)
        except RunFailed as problem:
            failure = problem
        failure, self._name = self._world.broadcast((failure, name))
        if failure is not None:
            raise failure

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
        turns: Turns | None = None,
    ) -> list[Group]:
        """Asks for all completions at a time. Raises `SamplingInterrupted`, `RolloutsRefused`."""
        check_sampling(sampling)
        try:
            by, longest = self._make_ready(prompts, sampling)
            asking = Asking(self._policy, prompts, sampling, by, on_completion, turns, longest)
            asyncio.run(self._sample(asking, by))
        except ServerAway as problem:
            self._note_away(problem)
            raise SamplingInterrupted(str(problem)) from None
        self._away_since = None
        return asking.groups

    def recover(self, alive: Callable[[], None]) -> str:
        """Waits until the server is well, at most as long as the limit says."""
        self._loaded, self._base = "", None  # it may be another process by now
        while True:
            silent = time.monotonic() - (self._away_since or time.monotonic())
            if silent >= self._limits.away:
                where = self._client.url.partition("://")[2]
                return (
                    f"The vLLM server at {where} has done no rollouts for {silent:.0f} seconds; its last"
                    f" error: {self._last_error}"
                )
            time.sleep(min(self._limits.again, self._limits.away))
            alive()
            try:
                self._client.check_health()
                if self._entry.shares_gpu:
                    self._client.wake_up()
                return ""
            except ServerAway as problem:
                self._note_away(problem)

    def rest(self) -> None:
        """Lets a server that shares the trainer's GPU sleep."""
        if self._entry.shares_gpu and self._world.is_main:
            self._quietly(self._client.sleep)

    def close(self) -> None:
        """Gives the server back as it was, and removes the files."""
        self._weights.close()

    def _quietly(self, call: Callable[[], None]) -> None:
        """Makes a call whose failure the next sampling would find too."""
        try:
            call()
        except ServerAway as problem:
            log.warning("vllm_away", url=self._client.url, problem=str(problem))

    def _note_away(self, problem: ServerAway) -> None:
        self._away_since = self._away_since or time.monotonic()
        self._last_error = str(problem)
        log.warning("vllm_away", url=self._client.url, problem=str(problem))

    def _make_ready(self, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[By, int]:
        """Sees that the server is what it should be and has the weights.

        Returns what is to be asked for, and the most tokens that the server takes.
        """
        is_new = self._base is None
        if self._base is None:
            self._weights.forget_left_over(self._name)
            self._base = find_base(self._client, self._entry, self._config)
        by = self._weights.by(self._name, self._base)
        if self._loaded != self._name:
            is_changed = self._weights.load(self._name, self._base)
            if is_new or is_changed:
                self._probe(by, prompts, sampling, is_new=is_new)
            self._loaded = self._name
        return by, self._base.longest

    def _probe(self, by: By, prompts: Sequence[Prompt], sampling: Sampling, *, is_new: bool) -> None:
        """Asks the server what it would write, and compares that with the policy."""
        shown = sorted(prompts, key=lambda prompt: len(prompt.tokens))[:PROBED_PROMPTS]
        tokens = [prompt.tokens for prompt in shown]
        if is_new:
            check_logprobs(self._client, by.model, tokens)
            check_tokenizer(self._client, by.model, self._policy, sampling)
        apart = check_policy(self._client, by, self._policy, tokens, self._most_apart)
        if self._first_apart is None:
            self._first_apart = apart
            self._tell(apart)

    @property
    def _most_apart(self) -> float:
        """How many nats the server may be off; where all weights go anew, what rounding makes."""
        if self._config.adapter != "full":
            return MOST_APART
        if self._policy.rollout_model.dtype == torch.float32:
            return COARSE
        return MOST_APART if self._first_apart is None else max(MOST_GROWN * self._first_apart, ROUNDING)

    def _tell(self, apart: float) -> None:
        if not self._world.is_main:
            return
        is_whole = self._config.adapter == "full"
        weights = "all weights, loaded anew" if is_whole else "an adapter loaded"
        told = {"version": self._client.version(), "url": self._client.url, "folder": self._entry.adapters}
        self._recorder.note("info", STARTED.format(weights=weights, apart=apart, **told))
        if apart > COARSE and self._policy.rollout_model.dtype == torch.float32:
            self._recorder.note("warn", COARSER.format(apart=apart))

    async def _sample(self, asking: Asking, by: By) -> None:
        async with self._client.requests(by.model) as requests:
            for number, one in asking.first():
                requests.ask(number, one)
            while requests.are_open or asking.waits_for_replies:
                if requests.are_open:
                    seconds = REPLIES_SECONDS if asking.waits_for_replies else None
                    for number, reply in await requests.replies(seconds):
                        asking.take(number, reply)
                for number, one in asking.next(wait=not requests.are_open):
                    requests.ask(number, one)
