"""The environment's side: `python host.py LINK`, run by the Python that has the environment installed.

It reads requests from a socket, one line of JSON each, and answers each by its `id`
(docs/environments.md). It imports only the standard library, and what it is told to load.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import itertools
import json
import os
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

MAX_BYTES = 2**20
"""Most bytes of an answer: the bound of what tools answer. Rows have it too, each."""
MAX_SHOWN = 500
"""Characters of an exception that are told. Chosen, not measured."""


class Refused(Exception):
    """Says what is wrong with what the environment gave back."""


class Loop:
    """Runs what the environment has as coroutines: one loop, on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def result(self, value: Any) -> Any:
        """Returns a value, or what it comes to where it is awaitable."""
        if not inspect.isawaitable(value):
            return value

        async def awaited() -> Any:
            return await value

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()


class Played:
    """Is an episode: an environment of its own, and the conversation so far."""

    def __init__(self, environment: Any, item: dict[str, Any]) -> None:
        self.environment = environment
        self.messages: list[dict[str, Any]] = list(item.get("messages") or [])

    @property
    def rewards(self) -> bool:
        return callable(getattr(self.environment, "reward", None))


class Host:
    """Carries out requests."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._factory: Any = None
        self._args: dict[str, Any] = {}
        self._rows: Any = None
        self._episodes: dict[str, Played] = {}

    def load(self, load: str | None, verifiers: str | None, args: dict[str, Any]) -> dict[str, Any]:
        if verifiers is not None:
            beside = _module_of(str(Path(__file__).with_name("verifiers_host.py")))
            self._factory, self._args = beside.factory(verifiers, args), {}
        else:
            module, _, name = str(load).rpartition(":")
            self._factory, self._args = getattr(_module_of(module), name), args
        return {"rows": callable(getattr(self._factory, "rows", None))}

    def start(self, episode: str, item: dict[str, Any]) -> dict[str, Any]:
        played = Played(self._factory(**self._args), item)
        opening = self._loop.result(played.environment.start(item)) or {}
        if not isinstance(opening, dict):
            raise Refused('start() must return {"messages": [...], "tools": [...]}, a part of it, or None')
        self._episodes[episode] = played
        told = {name: opening.get(name) for name in ("messages", "tools")}
        return {**told, "rewards": played.rewards}

    def reply(self, episode: str, message: dict[str, Any]) -> dict[str, Any]:
        played = self._episodes[episode]
        played.messages.append(message)
        came = self._loop.result(played.environment.reply(list(played.messages)))
        if came is None:
            return {"over": True, **self._reward(self._episodes.pop(episode))}
        if not isinstance(came, list) or not came:
            raise Refused("reply() must return a list of messages, or None where the episode is over")
        played.messages += came
        return {"messages": came}

    def end(self, episode: str, message: dict[str, Any] | None) -> dict[str, Any]:
        played = self._episodes.pop(episode)
        if message is not None:
            played.messages.append(message)
        return self._reward(played)

    def drop(self, episode: str) -> dict[str, Any]:
        played = self._episodes.pop(episode, None)
        if played is not None and callable(leave := getattr(played.environment, "drop", None)):
            self._loop.result(leave())
        return {}

    def rows(self, offset: int, limit: int) -> dict[str, Any]:
        if offset == 0:
            self._rows = iter(self._loop.result(self._factory.rows(**self._args)))
        return {"rows": list(itertools.islice(self._rows, limit))}

    def ping(self) -> dict[str, Any]:
        return {}

    def _reward(self, played: Played) -> dict[str, Any]:
        if not played.rewards:
            return {"reward": None}
        reward = self._loop.result(played.environment.reward(list(played.messages)))
        return {"reward": None if reward is None else float(reward)}


def _module_of(name: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Server:
    """Reads requests, each carried out on a thread of its own, so that one that hangs stops no other."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._host = Host()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Returns when the other side has closed."""
        for line in self._link.makefile("rb"):
            asked = json.loads(line)
            what = asked.pop("do")
            if what in ("load", "ping"):  # packages may set signal handlers, which only this thread can
                self._carry_out(what, asked)
            else:
                threading.Thread(target=self._carry_out, args=(what, asked), daemon=True).start()

    def _carry_out(self, what: str, asked: dict[str, Any]) -> None:
        number = asked.pop("id")
        try:
            told = {"id": number, "ok": getattr(self._host, what)(**asked)}
            answer = json.dumps(told, allow_nan=False)
            if len(answer) > MAX_BYTES * (1 if what != "rows" else asked["limit"]):
                raise Refused(f"its answer is larger than {MAX_BYTES} bytes")
        except BaseException as problem:
            if not isinstance(problem, Refused):
                traceback.print_exc()
            is_ours = isinstance(problem, Refused)
            text = str(problem) if is_ours else f"{type(problem).__name__}: {problem}"
            answer = json.dumps({"id": number, "error": text[:MAX_SHOWN]})
        with self._lock:
            self._link.sendall(answer.encode() + b"\n")


def main() -> None:
    own = str(Path(__file__).parent)
    sys.path[:] = [folder for folder in sys.path if folder != own]  # modules here are not the environment's
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    Server(link).run()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
