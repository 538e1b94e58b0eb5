"""The environment of a job with tools: makes the calls of a turn, and hands their outputs back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from methods.tools import tool_names
from workers.environments.tool import Context, Output, Tool, error, readable
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult
from workers.training.episodes.environment import EpisodeLost, Reply

THREADS = 64
"""Calls beside the first of their turn that are under way at the same time. Chosen, not measured."""


class ToolEnvironment:
    """Begins episodes in which the policy may call the tools that both its row and the job name."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tool")

    @property
    def names(self) -> list[str]:
        """Returns the names of the job's tools."""
        return list(self._tools)

    def start(self, item: Mapping[str, Any], trace_id: str) -> ToolEpisode:
        listed = tool_names(item)
        tools = {name: tool for name, tool in self._tools.items() if name in listed}
        return ToolEpisode(tools, Context(trace_id, item), self._threads)


class ToolEpisode:
    """Is one episode. It is over with the first turn that calls nothing."""

    def __init__(self, tools: Mapping[str, Tool], context: Context, threads: ThreadPoolExecutor) -> None:
        self._tools = tools
        self._context = context
        self._threads = threads

    def reply(self, parts: Parts) -> Reply:
        """Makes all calls: those that share a state one after another, the others side by side.

        Raises `EpisodeLost` with all results where a tool itself failed.
        """
        losses: list[EpisodeLost] = []
        own: dict[int, CallResult] = {}
        beside = {}
        for number, call in enumerate(parts.calls):
            tool = self._tools.get(call.name)
            if tool is None or tool.keeps_state or len(parts.calls) == 1:
                own[number] = self._result(call, tool, losses)
            else:
                beside[number] = self._threads.submit(self._result, call, tool, losses)
        by_number = own | {number: future.result() for number, future in beside.items()}
        results = [by_number[number] for number in range(len(parts.calls))]
        if losses:
            raise EpisodeLost(str(losses[0]), results=results)
        return Reply(results)

    def _result(self, call: ToolCall, tool: Tool | None, losses: list[EpisodeLost]) -> CallResult:
        """Returns what came of a call: of one whose tool failed an empty error, and why is in `losses`."""
        call_id, started = f"call_{uuid.uuid4().hex}", time.monotonic()
        try:
            output = self._unknown(call) if tool is None else tool.call(call, call_id, self._context)
        except EpisodeLost as lost:
            losses.append(lost)
            output = Output("", is_error=True)
        seconds = time.monotonic() - started
        text = readable(output.text)
        return CallResult(call_id, call, text, seconds, output.is_error, is_known=tool is not None)

    def _unknown(self, call: ToolCall) -> Output:
        known = ", ".join(self._tools) or "none"
        return error("unknown_function", f"There is no function '{call.name}'. Functions: {known}.")
