"""The environment of a job that names one of the operator's: its process is asked, for each turn."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from app.grading.patience import Gate
from app.table_settings import EnvironmentEntry
from methods.messages import text_of
from methods.tools import tool_names
from workers.environments.named.process import EnvironmentProcess, ProcessFailed
from workers.environments.tool import error, whole_text
from workers.training.base.parts import Parts
from workers.training.base.turns import CallResult
from workers.training.episodes.environment import EpisodeLost, Reply

STARTS = 10
"""Processes that are started for one training process: the first, and after those that ended by themselves.
Chosen, not measured.
"""
ROLES = ("user", "tool")
"""Who may say what an environment replies."""
SHOWN = 300
"""Characters of what an environment replied that a message shows. Chosen, not measured."""


class NamedEnvironment:
    """Begins episodes in the process of an environment, which is started when it is needed."""

    def __init__(
        self, name: str, entry: EnvironmentEntry, args: Mapping[str, Any], hidden: Sequence[str] = ()
    ) -> None:
        """`args` are those of the job; `hidden` are files and folders that its process must not read."""
        self._name = name
        self._entry = entry
        self._args = {**entry.args, **args}
        self._hidden = list(hidden)
        self._lock = threading.Lock()
        self._process: EnvironmentProcess | None = None
        self._n_started = 0
        self._gate = Gate(entry.concurrency)

    def start(self, item: Mapping[str, Any], trace_id: str) -> NamedEpisode:
        """Begins an episode. Raises `EpisodeLost`, also where the environment opens it otherwise than the
        row.
        """
        process = self._running()
        told = self.ask(process, "start", episode=trace_id, item=dict(item))
        episode = NamedEpisode(self, process, item, trace_id, rewards=told.get("rewards") is True)
        if (fault := _other_opening(item, told)) is not None:
            episode.drop()
            raise EpisodeLost(f"{self.whose} {fault}")
        return episode

    def rows(self, offset: int, limit: int) -> list[dict[str, Any]]:
        """Returns rows of the environment's own data set. Raises `EpisodeLost`."""
        found: list[dict[str, Any]] = self.ask(self._running(), "rows", offset=offset, limit=limit)["rows"]
        return found

    def ask(self, process: EnvironmentProcess, what: str, **fields: Any) -> dict[str, Any]:
        """Asks its process. Raises `EpisodeLost`."""
        try:
            with self._gate.through():
                return process.ask(what, self._entry.seconds, **fields)
        except ProcessFailed as failed:
            raise EpisodeLost(f"{self.whose} failed. {failed}") from None

    def close(self) -> None:
        """Ends its process."""
        with self._lock:
            if self._process is not None:
                self._process.close()

    @property
    def whose(self) -> str:
        """Returns what messages call it."""
        return f"The environment '{self._name}'"

    def _running(self) -> EnvironmentProcess:
        """Returns its process, a new one where the last has ended. Raises `EpisodeLost`."""
        with self._lock:
            if self._process is None or self._process.end:
                self._process = self._new(self._process)
            return self._process

    def _new(self, last: EnvironmentProcess | None) -> EnvironmentProcess:
        if last is not None and self._n_started == STARTS:
            message = f"{self.whose} ended {STARTS} times, and is not started again. {last.end}"
            raise EpisodeLost(message)
        if last is not None:
            last.close()
        self._n_started += 1
        process = EnvironmentProcess(self._name, self._entry, self._hidden)
        what = {"load": self._entry.load, "verifiers": self._entry.verifiers, "args": self._args}
        try:
            process.ask("load", self._entry.start_seconds, **what)
        except ProcessFailed as failed:
            process.close(str(failed))
        return process


class NamedEpisode:
    """Is one episode. `end` hears of its end where the environment did not decide it."""

    def __init__(
        self,
        environment: NamedEnvironment,
        process: EnvironmentProcess,
        item: Mapping[str, Any],
        trace_id: str,
        *,
        rewards: bool,
    ) -> None:
        self._environment = environment
        self._process = process
        self._trace_id = trace_id
        self._functions = tool_names(item)
        self.rewards = rewards

    def reply(self, parts: Parts) -> Reply:
        """Tells the turn, and returns what comes back: outputs of its calls, messages, or the end.

        A call where the row lists no function is the end.
        """
        if parts.calls and not self._functions:
            return self.end(parts, is_cut=False)
        message, call_ids = _told(parts)
        started = time.monotonic()
        told = self._asked("reply", message)
        if told.get("over") is True:
            return Reply(reward=self._reward(told))
        messages = self._messages(told.get("messages"))
        outputs = {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}
        seconds = time.monotonic() - started
        results = []
        for call_id, call in zip(call_ids, parts.calls, strict=True):
            answered = call_id in outputs
            text = outputs[call_id] if answered else error("unanswered", "Nobody answered this call.").text
            is_known = call.name in self._functions
            results.append(CallResult(call_id, call, text, seconds, not answered, is_known=is_known))
        return Reply(results, [message for message in messages if message["role"] != "tool"])

    def end(self, parts: Parts | None, *, is_cut: bool) -> Reply:
        """Tells the last turn, and returns the reward. What could not be taken apart gets none."""
        if parts is not None and parts.fault is not None:
            self.drop()
            return Reply()
        message = None if parts is None else _told(parts)[0]
        if is_cut and message is not None:
            message["finish_reason"] = "length"
        return Reply(reward=self._reward(self._asked("end", message)))

    def drop(self) -> None:
        """Tells the environment that nobody goes on with the episode."""
        if not self._process.end:
            with suppress(EpisodeLost):
                self._environment.ask(self._process, "drop", episode=self._trace_id)

    def _asked(self, what: str, message: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            return self._environment.ask(self._process, what, episode=self._trace_id, message=message)
        except EpisodeLost:
            self.drop()
            raise

    def _reward(self, told: Mapping[str, Any]) -> float | None:
        reward = told.get("reward")
        if reward is None:
            return None
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
            raise EpisodeLost(f"{self._environment.whose} gave a reward that is no finite number.")
        return float(reward)

    def _messages(self, found: Any) -> list[dict[str, Any]]:
        """Returns messages that the policy can read. Raises `EpisodeLost`."""
        messages = [_message(each) for each in found] if isinstance(found, list) else []
        whole = [each for each in messages if each is not None]
        if not whole or len(whole) < len(messages):
            self.drop()
            roles = " or ".join(f"'{role}'" for role in ROLES)
            raise EpisodeLost(
                f"{self._environment.whose} must reply with messages, each with the role {roles} and a text"
                f" as its content, those of tools with a tool_call_id; it replied {json.dumps(found)[:SHOWN]}"
            )
        return whole


def _message(found: Any) -> dict[str, Any] | None:
    """Returns a message as the policy reads it; None for one that it cannot."""
    match found:
        case {"role": "user", "content": str(text)}:
            return {"role": "user", "content": whole_text(text)}
        case {"role": "tool", "content": str(text), "tool_call_id": str(call_id)}:
            return {"role": "tool", "content": whole_text(text), "tool_call_id": call_id}
        case _:
            return None


def _told(parts: Parts) -> tuple[dict[str, Any], list[str]]:
    """Returns a turn in the chat form, and the ids of its calls."""
    call_ids = [f"call_{uuid.uuid4().hex}" for _ in parts.calls]
    message: dict[str, Any] = {"role": "assistant", "content": parts.answer}
    if parts.thoughts:
        message["reasoning_content"] = parts.thoughts
    if parts.calls:
        pairs = zip(parts.calls, call_ids, strict=True)
        message["tool_calls"] = [call.chat_form(call_id) for call, call_id in pairs]
    return message, call_ids


def _other_opening(item: Mapping[str, Any], told: Mapping[str, Any]) -> str | None:
    """Returns how an environment opens an episode otherwise than its row does; the policy reads the row."""
    for what, read in (("messages", _said), ("tools", _functions)):
        given = told.get(what)
        if given is not None and read({what: given}) != read(item):
            return (
                f"begins this row's episode with other {what} than the row has, which the policy has read:"
                f" {json.dumps(given)[:SHOWN]}. `cherry environments rows` writes rows that fit."
            )
    return None


def _said(item: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    found = item["messages"]
    if not isinstance(found, list) or not all(isinstance(each, dict) and "role" in each for each in found):
        return None
    return [(each["role"], text_of(each.get("content"))) for each in found]


def _functions(item: Mapping[str, Any]) -> list[str] | None:
    found = item.get("tools") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return None
    return sorted(tool_names(item))
