"""Speaks for environments of the package `verifiers`, up to 0.3: those that `load_environment` makes.

Such an environment runs a rollout by itself and asks a model for each turn. Here it asks a client that waits
for the policy's turn, and what it has added to the prompt when it asks again is its reply. So its stops,
tools, users and rubrics are its own. It runs beside the package, in the environment's process.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import time
from collections.abc import Iterator
from typing import Any

try:  # versions 0.3 keep it below the new interface
    import verifiers.legacy as vf
    from verifiers.legacy.clients import Client
    from verifiers.legacy.types import Response, ResponseMessage, ToolCall
except ImportError:
    import verifiers as vf

    if not hasattr(vf, "load_environment"):
        found = getattr(vf, "__version__", "of an unknown version")
        raise RuntimeError(
            f"verifiers {found} has no load_environment: install 'verifiers<0.4' beside the environment"
        ) from None
    from verifiers.clients import Client
    from verifiers.types import Response, ResponseMessage, ToolCall

MODEL = "policy"
OWN_KEYS = ("messages", "tools", "functions", "prompt")
"""Keys of a row that are not handed on as they are."""


FAULTS: contextvars.ContextVar[list[str]] = contextvars.ContextVar("faults")
"""What went wrong in the reward functions of the rollout under way."""


def factory(env_id: str, args: dict[str, Any]) -> Factory:
    return Factory(vf.load_environment(env_id, **args))


class Factory:
    """Makes episodes of one environment, and tells its data set."""

    def __init__(self, environment: Any) -> None:
        if environment.requires_group_rollouts:
            raise ValueError(
                "its rubric compares the rollouts of a group, and episodes are judged one by one"
            )
        self._environment = environment
        watch(environment.rubric)

    def __call__(self) -> Rollout:
        return Rollout(self._environment)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields the data set as rows of a job."""
        tools = [_tool_form(tool) for tool in self._environment.tool_defs or []]
        for number, row in enumerate(self._environment.get_dataset()):
            info = row.get("info")
            info = json.loads(info) if isinstance(info, str) and info else info
            told = (info or {}).get("tool_defs")
            listed = [_tool_form(tool) for tool in told] if told else tools
            yield {
                "messages": [_chat_form(message) for message in _dumped(row["prompt"])],
                **({"tools": listed} if listed else {}),
                **{key: value for key, value in row.items() if key not in OWN_KEYS and value is not None},
                **({"info": info} if info else {}),
                "example_id": row.get("example_id", number),
            }


class Asks(Client):  # type: ignore[misc]
    """Is the model that the environment asks: each question waits for the policy's turn."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked: asyncio.Queue[tuple[list[dict[str, Any]], list[Any]]] = asyncio.Queue()
        self.turns: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def get_response(
        self, prompt: Any, *_: Any, tools: Any = None, state: Any = None, **__: Any
    ) -> Response:
        self.asked.put_nowait(([_chat_form(message) for message in _dumped(prompt)], list(tools or [])))
        turn = await self.turns.get()
        if turn is None:
            raise vf.OverlongPromptError("the policy writes no other turn")
        if turn.get("is_last"):  # the environment is not to go on: no call of this turn is made
            state["prompt_too_long"] = True
        return _response(turn)

    def setup_client(self, config: Any) -> Any:
        return config

    async def close(self) -> None:
        pass

    async def _unused(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the policy is asked by get_response")

    to_native_tool = to_native_prompt = get_native_response = _unused
    raise_from_native_response = from_native_response = _unused


class Rollout:
    """Is one rollout of the environment, from its first question to its reward."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._client: Asks
        self._task: asyncio.Task[Any]
        self._known: list[dict[str, Any]] = []

    async def start(self, item: dict[str, Any]) -> dict[str, Any]:
        self._client = Asks()
        self._faults: list[str] = []
        FAULTS.set(self._faults)
        kept = {key: value for key, value in item.items() if key not in OWN_KEYS}
        given = {"example_id": 0, **kept, "prompt": item["messages"]}
        self._task = asyncio.ensure_future(
            self._environment.run_rollout(given, self._client, MODEL, {}, max_retries=0)
        )
        asked = await self._asked()
        if asked is None:
            raise ValueError(f"its rollout ended before the policy's first turn: {_fault(self._task)}")
        prompt, tools = asked
        self._known = prompt
        return {"messages": prompt, "tools": [_tool_form(tool) for tool in tools]}

    async def reply(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        turn = messages[-1]
        self._client.turns.put_nowait(turn)
        asked = await self._asked()
        if asked is None:
            return None
        known, prompt = [*self._known, _chat_form(turn)], asked[0]
        if [_core(each) for each in prompt[: len(known)]] != [_core(each) for each in known]:
            raise ValueError("it has changed what was said before, and a conversation can only go on")
        if len(prompt) == len(known):
            raise ValueError("it asked for another turn without a message between")
        self._known = prompt
        return prompt[len(known) :]

    async def reward(self, messages: list[dict[str, Any]]) -> float | None:
        """Returns the rubric's reward; the rollout ends with the last message where it still goes on."""
        if not self._task.done():
            if messages[-1]["role"] == "assistant":
                self._client.turns.put_nowait({**messages[-1], "is_last": True})
            self._client.turns.put_nowait(None)
        output = await self._task
        if output.get("error"):
            raise ValueError(f"its rollout failed: {_told(output['error'])}")
        if self._faults:
            raise ValueError(self._faults[0])
        reward: float | None = output["reward"]
        return reward

    async def drop(self) -> None:
        self._task.cancel()

    async def _asked(self) -> tuple[list[dict[str, Any]], list[Any]] | None:
        """Returns the environment's next question; None where its rollout is over."""
        question = asyncio.ensure_future(self._client.asked.get())
        await asyncio.wait({question, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if question.done():
            return question.result()
        question.cancel()
        return None


def watch(rubric: Any) -> None:
    """Has the reward functions of a rubric, and of those in it, note when they fail.

    The package itself counts such a failure as 0. What has no weight is a metric, and may fail.
    """
    for inner in getattr(rubric, "rubrics", []):
        watch(inner)
    for place, (func, weight) in enumerate(zip(rubric.funcs, rubric.weights, strict=True)):
        if weight:
            rubric.funcs[place] = _noting(func)


def _noting(func: Any) -> Any:
    @functools.wraps(func)
    async def call(*values: Any, **known: Any) -> float:
        try:
            found = func(*values, **known)
            return float(await found if inspect.isawaitable(found) else found)
        except Exception as problem:
            FAULTS.get().append(
                f"its reward function '{func.__name__}' failed: {type(problem).__name__}: {problem}"
            )
            raise

    return call


def _fault(task: asyncio.Task[Any]) -> str:
    if (problem := task.exception()) is not None:
        return f"{type(problem).__name__}: {problem}"
    return _told(task.result().get("error")) or "it asked for none"


def _told(error: Any) -> str:
    return str(error.get("error_chain_repr", error)) if isinstance(error, dict) else str(error or "")


def _dumped(messages: Any) -> list[dict[str, Any]]:
    listed = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return [dict(one if isinstance(one, dict) else one.model_dump()) for one in listed]


def _chat_form(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a message of the package, or of a chat, in the chat form without what is empty."""
    kept = {"role": message["role"], "content": _text(message.get("content"))}
    if message.get("tool_call_id"):
        kept["tool_call_id"] = message["tool_call_id"]
    if calls := message.get("tool_calls"):
        kept["tool_calls"] = [_call_form(call) for call in calls]
    return kept


def _text(content: Any) -> str:
    """Returns the text of a content; what is no text has no place in the conversation."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = _dumped_parts(content)
    if any(part.get("type") != "text" for part in parts):
        raise ValueError("a message holds an image or a sound, and episodes are text")
    return "".join(part["text"] for part in parts)


def _dumped_parts(content: Any) -> list[dict[str, Any]]:
    return [part if isinstance(part, dict) else part.model_dump() for part in content]


def _call_form(call: Any) -> dict[str, Any]:
    call = call if isinstance(call, dict) else call.model_dump()
    function = call.get("function") or {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _core(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [call["function"]["name"] for call in message.get("tool_calls", ())]
    return message["role"], message["content"], calls


def _tool_form(tool: Any) -> dict[str, Any]:
    tool = tool if isinstance(tool, dict) else tool.model_dump()
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key)}
    return {"type": "function", "function": function}


def _response(turn: dict[str, Any]) -> Response:
    calls = [
        ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
        for call in turn.get("tool_calls", ())
    ]
    is_cut = turn.get("finish_reason") == "length"
    message = ResponseMessage(
        content=turn["content"],
        reasoning_content=turn.get("reasoning_content"),
        tool_calls=calls or None,
        finish_reason="length" if is_cut else "tool_calls" if calls else "stop",
        is_truncated=is_cut,
    )
    return Response(id="policy", created=int(time.time()), model=MODEL, message=message)
