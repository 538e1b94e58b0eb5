"""Samples a run's rollouts with a vLLM server: the policy's adapter goes over as a file, token ids come back.

Each completion is a request of its own, with a seed that follows from the same key as in the sampler of the
training process, so that it is graded as soon as it ends. What answered is known by name: an adapter is
loaded under the run, the number of updates and a digest of its weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import structlog

from app.table_settings import VllmEntry
from methods.train_config import TrainConfig
from workers.rollouts.adapter_files import adapter_weights, write_adapter
from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.probe import check_logprobs
from workers.rollouts.replies import Written, read_reply
from workers.rollouts.served import find_base
from workers.rollouts.vllm_client import Asked, VllmClient
from workers.training.base.distributed import World
from workers.training.base.randomness import keyed_seed
from workers.training.base.recorder import Recorder
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.policy import Policy
from workers.training.rendering.conversation import tools_of
from workers.training.rendering.stop_strings import StopStrings
from workers.training.sampling.asked import OnCompletion, Sampling
from workers.training.sampling.backend import SamplingInterrupted
from workers.training.sampling.turns import Turns

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 2.0
"""The wait between two looks at a server that is away. Chosen, not measured."""
AFTER = "-after-"
"""Stands in the name of an adapter between the run and the number of updates made to its weights."""
PROBED_PROMPTS = 4
STARTED = (
    "Rollouts: vLLM {version} at {url} samples this job's training completions, from an adapter loaded for"
    " each step ({folder}). Evaluations and the KL probe stay with the built-in sampler."
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
        """`run_name` is in the names of its adapters: no other run that asks this server has the same."""
        self._client = VllmClient(entry)
        self._entry = entry
        self._run_name = run_name
        self._policy = policy
        self._config = config
        self._world = world
        self._recorder = recorder
        self._limits = limits
        self._folder = Path(entry.adapters).absolute() / run_name
        self._adapter = ""
        """The name of the adapter with the weights that are followed."""
        self._loaded = ""
        """The adapter that the server is known to have."""
        self._has_probed = False
        self._longest = 0
        """The most tokens of prompt and completion that the server takes; 0 while that is not known."""
        self._away_since: float | None = None
        self._last_error = ""
        if world.is_main:
            shutil.rmtree(self._folder, ignore_errors=True)
        world.wait()

    def follow(self, updates: int) -> None:
        """Writes the adapter where the server sees it. It is loaded when it is sampled from."""
        weights = adapter_weights(self._policy)
        failure: Exception | None = None
        name = ""
        if self._world.is_main:
            try:
                prefix = f"{self._run_name}{AFTER}{updates:06d}"
                name = write_adapter(self._folder, prefix, weights, self._config)
                self._forget_all_but(name)
                if self._entry.shares_gpu:
                    self._quietly(self._client.wake_up)
            except RolloutsRefused as problem:
                failure = problem
        failure, self._adapter = self._world.broadcast((failure, name))
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
        _check(sampling, turns)
        try:
            self._make_ready(prompts)
            found = asyncio.run(self._sample(prompts, sampling, on_completion))
        except ServerAway as problem:
            self._note_away(problem)
            raise SamplingInterrupted(str(problem)) from None
        self._away_since = None
        samples = range(sampling.samples)
        return [
            Group(prompt, tuple(found[i, sample] for sample in samples)) for i, prompt in enumerate(prompts)
        ]

    def recover(self, alive: Callable[[], None]) -> str:
        """Waits until the server is well and has the adapter, at most as long as the limit says."""
        self._loaded, self._has_probed = "", False  # it may be another process by now
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
        """Unloads the adapters and removes their files."""
        if self._world.is_main:
            self._forget_all_but("")
            shutil.rmtree(self._folder, ignore_errors=True)

    def _quietly(self, call: Callable[[], None]) -> None:
        """Makes a call whose failure the next sampling would find too."""
        try:
            call()
        except ServerAway as problem:
            log.warning("vllm_away", url=self._client.url, problem=str(problem))

    def _forget_all_but(self, name: str) -> None:
        """Unloads every adapter of this run but one, and removes their files."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name != name:
                with contextlib.suppress(RolloutsRefused):
                    self._quietly(lambda one=folder.name: self._client.unload_adapter(one))  # type: ignore[misc]
                shutil.rmtree(folder, ignore_errors=True)

    def _forget_left_over(self) -> None:
        """Unloads what an earlier attempt of this run, which was killed, has left on the server."""
        own = f"{self._run_name}{AFTER}"
        for one in self._client.models() if self._world.is_main else ():
            name = str(one.get("id"))
            if one.get("parent") and name.startswith(own) and name != self._adapter:
                self._client.unload_adapter(name)

    def _note_away(self, problem: ServerAway) -> None:
        self._away_since = self._away_since or time.monotonic()
        self._last_error = str(problem)
        log.warning("vllm_away", url=self._client.url, problem=str(problem))

    def _make_ready(self, prompts: Sequence[Prompt]) -> None:
        """Sees that the server is what it should be and has the adapter."""
        if not self._has_probed:
            self._forget_left_over()
            base = find_base(self._client, self._entry, self._config)
            self._longest = base.longest
            shown = sorted(prompts, key=lambda prompt: len(prompt.tokens))[:PROBED_PROMPTS]
            check_logprobs(self._client, base.name, [prompt.tokens for prompt in shown])
        if self._loaded != self._adapter:
            self._client.load_adapter(self._adapter, str(self._folder / self._adapter))
            self._loaded = self._adapter
        if not self._has_probed:
            self._has_probed = True
            version, url, folder = self._client.version(), self._client.url, self._folder.parent
            self._tell(STARTED.format(version=version, url=url, folder=folder))

    def _tell(self, sentence: str) -> None:
        if self._world.is_main:
            self._recorder.note("info", sentence)

    async def _sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_completion: OnCompletion | None
    ) -> dict[tuple[int, int], Completion]:
        stops = StopStrings(self._policy.tokenizer, sampling.stop)
        wanted = [(i, sample) for i in range(len(prompts)) for sample in range(sampling.samples)]
        asked = [self._asked(prompts[i], sample, sampling) for i, sample in wanted]
        found: dict[tuple[int, int], Completion] = {}
        replies = self._client.generate(self._adapter, asked)
        async with contextlib.aclosing(replies):
            async for number, reply in replies:
                i, sample = wanted[number]
                most = self._most(prompts[i], sampling)
                written = read_reply(reply, self._adapter, self._policy.vocabulary, most)
                completion = self._completion(prompts[i], written, sampling, stops)
                found[i, sample] = completion
                if on_completion is not None:
                    on_completion(i, sample, completion)
        return found

    def _most(self, prompt: Prompt, sampling: Sampling) -> int:
        """Returns how many tokens a completion may have."""
        return max(1, min(sampling.max_tokens, self._policy.context - len(prompt.tokens)))

    def _asked(self, prompt: Prompt, sample: int, sampling: Sampling) -> Asked:
        most = self._most(prompt, sampling)
        if self._longest and len(prompt.tokens) + most > self._longest:
            raise RolloutsRefused(
                f"The vLLM server at {self._client.url} takes {self._longest} tokens of prompt and"
                f" completion, and a row needs {len(prompt.tokens)} and {most}. Start it with a larger"
                " --max-model-len, or lower max_completion_tokens."
            )
        parameters = {
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "max_tokens": most,
            # vLLM's seeds are signed numbers of 64 bits
            "seed": keyed_seed(*sampling.key, prompt.row, sample) >> 1,
            "logprobs": 0,
            "ignore_eos": True,
            "stop_token_ids": list(self._policy.end_ids),
            "detokenize": bool(sampling.stop),
        }
        if sampling.stop:
            parameters |= {"stop": list(sampling.stop), "skip_special_tokens": False}
        return Asked(prompt.tokens, parameters)

    def _completion(
        self, prompt: Prompt, written: Written, sampling: Sampling, stops: StopStrings
    ) -> Completion:
        """Returns a completion as the engine has them: cut at its end token or stop string."""
        tokens, at_stop = _cut(written.tokens, stops)
        at_end = tokens[-1] in self._policy.end_ids
        if written.is_ended != (at_end or at_stop):
            raise ServerAway(f"a reply of it cannot be used: it does not end as it says ({tokens[-3:]})")
        (text,) = stops.decoded([tokens[:-1] if at_end else tokens])
        text, _ = stops.cut(text)
        completion = Completion(
            tokens=tokens,
            logprobs=written.logprobs[: len(tokens)],
            text=text,
            finish_reason="stop" if written.is_ended else "length",
            sampled_by=self._adapter,
        )
        if sampling.reader is None:
            return completion
        tools = tools_of(prompt.item)
        parts = sampling.reader.read(prompt.tokens, tokens, tools, text if at_stop else None)
        return replace(completion, parts=parts)


def _cut(tokens: tuple[int, ...], stops: StopStrings) -> tuple[tuple[int, ...], bool]:
    """Returns the tokens up to the one that completed a stop string, and whether one did."""
    if stops:
        for count in range(1, len(tokens) + 1):
            if stops.is_complete(tokens[:count]):
                return tokens[:count], True
    return tokens, False


def _check(sampling: Sampling, turns: Turns | None) -> None:
    """Raises `RolloutsRefused` for what validation should have refused."""
    asked = {
        "turns of an episode": turns is not None,
        "a response format": sampling.grammar is not None,
        "a budget of thoughts": sampling.thinking_tokens is not None and sampling.reader is not None,
        "top_p": sampling.top_p != 1,
        "temperature 0": sampling.temperature == 0,
    }
    if named := [name for name, is_asked in asked.items() if is_asked]:
        raise RolloutsRefused(
            f"vLLM does not do rollouts with {', '.join(named)} here: set rollouts to built_in."
        )
