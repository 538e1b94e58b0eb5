"""Tools of Python, in the real sandbox: outputs, a state for each episode, and errors that are read."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from workers.environments.python_tools import PythonTool
from workers.environments.tools import ToolEnvironment
from workers.training.base.parts import Parts, ToolCall

SOURCE = """
def count(arguments, state):
    state["n"] = state.get("n", 0) + arguments["by"]
    return {"n": state["n"]}
"""
ITEM = {"tools": [{"type": "function", "function": {"name": "count"}}]}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    sandbox = LocalSandbox(SandboxSettings())
    if (reason := sandbox.why_not()) is not None:
        sandbox.close()
        pytest.skip(f"no sandbox holds here: {reason}")
    yield sandbox
    sandbox.close()


def outputs(sandbox: LocalSandbox, *turns: tuple[ToolCall, ...], source: str = SOURCE) -> list[list[str]]:
    episode = ToolEnvironment({"count": PythonTool("count", source, sandbox)}).start(ITEM, "trace_1")
    return [[result.output for result in episode.reply(Parts(calls=calls)).results] for calls in turns]


def test_calls_of_an_episode_share_a_state_in_their_order(sandbox: LocalSandbox) -> None:
    one, two = ToolCall("count", {"by": 1}), ToolCall("count", {"by": 10})
    assert outputs(sandbox, (one, two), (two,)) == [['{"n": 1}', '{"n": 11}'], ['{"n": 21}']]
    assert outputs(sandbox, (one,)) == [['{"n": 1}']], "another episode has a state of its own"


def test_what_goes_wrong_in_it_the_policy_reads(sandbox: LocalSandbox) -> None:
    ((raised,),) = outputs(sandbox, (ToolCall("count", {}),))
    assert json.loads(raised) == {"error": {"code": "raised", "message": "KeyError: 'by'"}}


def test_an_exception_of_several_lines_is_read_whole(sandbox: LocalSandbox) -> None:
    source = "def count(arguments, state):\n    raise ValueError('Give by.\\nIt is a number.')\n"
    ((raised,),) = outputs(sandbox, (ToolCall("count", {}),), source=source)
    assert json.loads(raised)["error"]["message"] == "ValueError: Give by.\nIt is a number."


@pytest.mark.parametrize("character", ["\\x00", "\\ud83d"])
def test_characters_that_nobody_can_read_are_replaced(sandbox: LocalSandbox, character: str) -> None:
    source = f"def count(arguments, state):\n    return ['a{character}b', {{'k': 'é😀{character}'}}]\n"
    ((output,),) = outputs(sandbox, (ToolCall("count", {}),), source=source)
    assert json.loads(output) == ["a\ufffdb", {"k": "é😀\ufffd"}]


def test_an_answer_of_more_than_a_megabyte_is_an_error(sandbox: LocalSandbox) -> None:
    source = "def count(arguments, state):\n    return 'x' * arguments['n']\n"
    sizes = ToolCall("count", {"n": 2**20}), ToolCall("count", {"n": 2**20 + 1})
    ((whole, large),) = outputs(sandbox, sizes, source=source)
    assert len(whole) == 2**20
    assert json.loads(large)["error"]["code"] == 413


def test_it_has_no_network(sandbox: LocalSandbox) -> None:
    source = "import socket\ndef count(arguments, state):\n    socket.create_connection(('127.0.0.1', 1))\n"
    ((told,),) = outputs(sandbox, (ToolCall("count", {}),), source=source)
    assert json.loads(told)["error"]["code"] == "raised"
