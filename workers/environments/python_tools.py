"""Tools that are Python of the user's: each call runs in the sandbox, and keeps a state for its episode."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from graders.services import Limits, Program, Sandbox
from workers.environments.tool import MAX_BYTES, Context, Output, error, too_large
from workers.training.base.parts import ToolCall
from workers.training.episodes.environment import EpisodeLost

LIMITS = Limits(wall_seconds=120, cpu_seconds=120, memory_bytes=2 * 2**30, result_bytes=2 * MAX_BYTES)
"""Those of `python` graders; a result may hold an output and a state of 1 MB each. The sandbox's settings may
lower them.
"""
_CALL = """

def _cherry_readable(value):
    if isinstance(value, str):
        halved = value.replace(chr(0), chr(0xFFFD)).encode("utf-16-le", "surrogatepass")
        return halved.decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {{_cherry_readable(key): _cherry_readable(part) for key, part in value.items()}}
    return [_cherry_readable(part) for part in value] if isinstance(value, (list, tuple)) else value

def _cherry_call(arguments, state):
    output = {name}(arguments, state)
    return {{"output": _cherry_readable(output), "state": state}}
"""
"""What the sandbox could not hand out is replaced in it: NUL, and halves of characters."""


@dataclass(frozen=True)
class PythonTool:
    """Is a function `NAME(arguments, state)`. What it leaves in `state`, its episode's next call finds."""

    name: str
    source: str
    sandbox: Sandbox
    keeps_state: bool = True

    def call(self, call: ToolCall, _call_id: str, context: Context) -> Output:
        arguments = dict(call.arguments)
        program = Program(
            self.source + _CALL.format(name=self.name),
            "_cherry_call",
            [arguments, context.state],
            seed=zlib.crc32(json.dumps(arguments).encode()),
            limits=LIMITS,
        )
        outcome = self.sandbox.run(program)
        if outcome.fault == "server":
            raise EpisodeLost(f"The tool '{self.name}' could not be run: {outcome.message}")
        if outcome.fault is not None:
            return error(outcome.fault, _without_frames(outcome.message))
        found: Any = outcome.value
        if isinstance(found["state"], dict):
            context.state = found["state"]
        output = found["output"]
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        return too_large("The answer of the tool") if len(text.encode()) > MAX_BYTES else Output(text)


def _without_frames(message: str) -> str:
    """Returns what a traceback tells behind its frames, which may be several lines; other messages whole."""
    lines = message.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    told = lines[frames[-1] + 1 :] if frames else lines
    return "\n".join(dropwhile(lambda line: line.startswith("    "), told))
