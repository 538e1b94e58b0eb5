"""Plays the episodes of one call of the sampler: replies come on threads of their own while sampling goes on.

Whatever the order in which replies come, each episode has the same tokens: its random numbers are keyed, and
only its own turns and replies are read.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, Protocol

from workers.training.base.parts import Parts
from workers.training.base.types import Completion, Prompt
from workers.training.episodes.environment import (
    DroppedEpisode,
    Environment,
    EpisodeLost,
    FollowedEpisode,
    Reply,
)
from workers.training.episodes.limits import EpisodeLimits
from workers.training.episodes.running import Running
from workers.training.rendering.between import TurnsUnsupported, tokens_between
from workers.training.rendering.conversation import conversation
from workers.training.sampling.turns import GoesOn, Over

ALIVE_SECONDS = 1.0
"""The pause between two signs of life while nothing but replies is waited for. Chosen, not measured."""


class TakesApart(Protocol):
    """Takes what a policy has written apart."""

    def read(
        self, prompt_ids: Sequence[int], tokens: Sequence[int], tools: Sequence[Any] | None = None
    ) -> Parts:
        """Returns the parts of a turn that was written behind `prompt_ids`."""


class Play:
    """Is the `Turns` of one call of the sampler. All but the replies is done on the sampler's thread."""

    def __init__(
        self,
        environment: Environment,
        tokenizer: Any,
        reader: TakesApart,
        prompts: Sequence[Prompt],
        limits: EpisodeLimits,
        end_ids: Collection[int],
        threads: ThreadPoolExecutor,
        alive: Callable[[], None] = lambda: None,
        *,
        follows: bool = False,
    ) -> None:
        """`alive` is called now and then while there is nothing to do but to wait.

        `follows` says whether the environment hears of ends that it did not decide: its episodes are
        `FollowedEpisode`s.
        """
        self._environment = environment
        self._tokenizer = tokenizer
        self._reader = reader
        self._prompts = prompts
        self._limits = limits
        self._end_ids = frozenset(end_ids)
        self._threads = threads
        self._alive = alive
        self._follows = follows
        self._running: dict[tuple[int, int], Running] = {}
        self._come: queue.SimpleQueue[tuple[Running, Reply | Exception]] = queue.SimpleQueue()
        self._over: list[Over] = []
        self._n_asked = 0
        self._is_dropped = False

    @property
    def are_open(self) -> bool:
        """Says whether anything was written whose outcome `next` has not returned yet."""
        return self._n_asked > 0 or bool(self._over)

    def end(self, prompt: int, sample: int, written: Completion) -> None:
        """Takes a turn. Its episode is over, or its environment is asked on another thread."""
        running = self._of(prompt, sample)
        before = running.read
        parts = self._reader.read(before, written.tokens, conversation(running.item).tools)
        running.write(written, parts)
        if written.finish_reason == "length" or (parts.calls and self._is_at_its_end(running)):
            running.ending = "length"
        elif parts.fault is not None or self._is_at_its_end(running):
            running.ending = "stop"
        if running.ending is not None and not self._follows:
            self._over.append(self._ended(running, running.ending))
        else:
            self._submit(running, parts)

    def next(self, *, wait: bool) -> list[GoesOn | Over]:
        """Returns episodes that are over, and those that go on. Raises what an environment should not."""
        found: list[GoesOn | Over] = [*self._over]
        self._over.clear()
        while self._n_asked:
            try:
                running, reply = self._come.get(block=wait and not found, timeout=ALIVE_SECONDS)
            except queue.Empty:
                self._alive()
                if wait and not found:
                    continue
                break
            self._n_asked -= 1
            if (outcome := self._go_on(running, reply)) is not None:
                found.append(outcome)
        return found

    def drop(self) -> None:
        """Leaves all episodes that are not over, since sampling broke off. Nothing is called afterwards."""
        self._is_dropped = True
        for running in self._running.values():
            self._threads.submit(_drop, running)

    def _of(self, prompt: int, sample: int) -> Running:
        place = prompt, sample
        if place not in self._running:
            trace_id = f"trace_{uuid.uuid4().hex}"
            self._running[place] = Running(place, self._prompts[prompt], trace_id)
        return self._running[place]

    def _is_at_its_end(self, running: Running) -> bool:
        """Whether no turn could follow, whatever came back."""
        limits = self._limits
        return (
            len(running.turns) >= limits.steps
            or running.n_sampled >= limits.tokens
            or len(running.read) >= limits.context
        )

    def _submit(self, running: Running, parts: Parts | None) -> None:
        self._n_asked += 1
        self._threads.submit(self._ask, running, parts)

    def _ask(self, running: Running, parts: Parts | None) -> None:
        """Asks the environment, on a thread of the pool. What it raises is raised where replies are taken."""
        try:
            if running.episode is None:
                running.episode = self._environment.start(running.item, running.trace_id)
            episode, ending = running.episode, running.ending
            if ending is None and parts is not None:
                reply: Reply | Exception = episode.reply(parts)
            else:
                assert isinstance(episode, FollowedEpisode)
                reply = episode.end(parts, is_cut=ending == "length")
        except Exception as problem:
            reply = problem
        self._come.put((running, reply))
        if self._is_dropped:  # it had perhaps no episode yet when all were dropped
            _drop(running)

    def _go_on(self, running: Running, reply: Reply | Exception) -> GoesOn | Over | None:
        """Returns what follows a reply; None where the environment is to hear first that nothing does."""
        if isinstance(reply, EpisodeLost):
            running.spend(reply.usage)
            if reply.results:
                running.note(self._counted(Reply(reply.results)))
            return self._ended(running, "stop", lost=reply)
        if isinstance(reply, Exception):
            raise reply
        running.spend(reply.usage)
        if reply.is_over:
            running.reward = reply.reward
            return self._ended(running, running.ending or "stop")
        running.note(self._counted(reply))
        try:
            tokens = self._tokens_of(running, reply)
        except TurnsUnsupported as problem:
            return self._ended(running, "stop", lost=EpisodeLost(str(problem)))
        if len(running.read) + len(tokens) >= self._limits.context:
            running.ending = "length"
            if not self._follows:
                return self._ended(running, "length")
            self._submit(running, None)
            return None
        running.give(tokens)
        read = running.read
        most = min(self._limits.tokens - running.n_sampled, self._limits.context - len(read))
        return GoesOn(*running.place, read, len(running.tokens), most, len(running.turns))

    def _counted(self, reply: Reply) -> Reply:
        """Returns the reply with the length of each output."""
        results = [
            replace(one, tokens=len(self._tokenizer(one.output, add_special_tokens=False)["input_ids"]))
            for one in reply.results
        ]
        return replace(reply, results=results)

    def _ended(
        self, running: Running, finish_reason: Literal["stop", "length"], lost: EpisodeLost | None = None
    ) -> Over:
        del self._running[running.place]
        tokens = running.tokens[:-1] if running.tokens[-1] in self._end_ids else running.tokens
        text = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Over(*running.place, running.completion(text, finish_reason, lost))

    def _tokens_of(self, running: Running, reply: Reply) -> list[int]:
        """Returns the ids of what has come back, and of what the template writes around it."""
        assert running.last is not None, "a turn was written"
        written = running.last.tokens
        called = [call.name for call in running.turns[-1].parts.calls]
        replies = [*(result.message for result in reply.results), *reply.messages]
        end_id = written[-1] if written[-1] in self._end_ids else None
        return tokens_between(self._tokenizer, running.item, called, replies, end_id)


def _drop(running: Running) -> None:
    if isinstance(running.episode, DroppedEpisode):
        running.episode.drop()
