"""`cherry chat`: in a terminal, out of a pipe and for scripts, with one model and with two."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from typer.testing import CliRunner, Result

from app.cli.chat import _converse
from app.cli.main import cli
from app.cli.problems import explain
from app.cli.talk import Talk, safe_in_terminal
from tests.app.cli.chat_servers import ChatServer, chat_server

ROOT = Path(__file__).parents[3]
SECONDS = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def chat(server: ChatServer, *arguments: str, stdin: str | bytes | None = None) -> Result:
    server.asked.clear()
    place = ["--url", server.url, "--key", "k"]
    return CliRunner().invoke(cli, ["chat", *arguments, *place], input=stdin)


def test_each_line_of_a_pipe_is_a_question_of_one_conversation(server: ChatServer) -> None:
    answered = chat(
        server, "small", "--system", "Be kind.", "--temperature", "0", "--max-tokens", "9", stdin="one\n\ntwo"
    )
    assert answered.output == "small heard one\nsmall heard two\n"
    system = {"role": "system", "content": "Be kind."}
    first = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "small heard one"}]
    assert [asked["messages"] for asked in server.asked] == [
        [system, first[0]],
        [system, *first, {"role": "user", "content": "two"}],
    ]
    numbers = {"temperature": 0.0, "max_completion_tokens": 9, "stream": True}
    assert server.asked[0].items() >= numbers.items()


def test_what_is_no_utf_8_is_named_and_not_asked(server: ChatServer) -> None:
    answered = chat(server, "small", stdin="é\n".encode() + b"\xff\xfe\n")
    assert answered.output == "small heard é\n"
    assert explain(answered.exception) == "line 2 of the input is no UTF-8"
    asked = chat(server, "small", "--once", os.fsdecode(b"\xff"))
    assert explain(asked.exception) == "an argument, or a text that was read, is no UTF-8"


def test_a_reset_forgets_and_quit_leaves(server: ChatServer) -> None:
    answered = chat(server, "small", stdin="one\n/reset\ntwo\n/quit\nthree\n")
    assert answered.output == "small heard one\nsmall heard two\n"
    assert [len(asked["messages"]) for asked in server.asked] == [1, 1]


def test_an_answer_for_scripts_is_a_line_of_json(server: ChatServer) -> None:
    answered = chat(server, "small", "--once", "hi", "--json", "--against", "large")
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    rest = {"question": "hi", "finish_reason": "stop", "usage": usage}
    assert [json.loads(line) for line in answered.output.splitlines()] == [
        {"model": name, "content": f"{name} heard hi", **rest} for name in ("small", "large")
    ]


def test_two_models_in_a_pipe_answer_one_after_the_other(server: ChatServer) -> None:
    answered = chat(server, "small", "--against", "large", stdin="hi\n")
    assert answered.output == "small:\nsmall heard hi\n\nlarge:\nlarge heard hi\n"


def test_a_fault_of_the_service_is_an_error(server: ChatServer) -> None:
    answered = chat(server, "small", "--once", "busy")
    assert isinstance(answered.exception, BadRequestError)
    assert explain(answered.exception) == "The model is busy."


def test_no_answer_takes_hold_of_a_terminal() -> None:
    assert safe_in_terminal("a\n\tb\x1b[2J\r\x9b1m\x7f é") == "a\n\tb\ufffd[2J\ufffd\ufffd1m\ufffd é"


class Terminal:
    """A person at a terminal: reads what is shown, and types."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process = process
        self.shown = ""
        self._end = end

    def read_until(self, wanted: str) -> str:
        """What is shown up to and with a text, without the codes for colours and cursor."""
        while wanted not in self.shown:
            ready, _, _ = select.select([self._end], [], [], SECONDS)
            assert ready, f"{wanted!r} was not shown, but {self.shown!r}"
            raw = os.read(self._end, 65536).decode()
            self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw)
        before, wanted, self.shown = self.shown.partition(wanted)
        return before + wanted

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())


def heed_interrupts() -> None:
    """Whatever a shell that runs the tests in the background lets them ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(server: ChatServer, *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "app.cli.main", "chat", *arguments, "--url", server.url, "--key", "k"]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_a_person_asks_stops_an_answer_and_leaves(server: ChatServer) -> None:
    server.asked.clear()
    server.left.clear()
    with terminal(server, "small") as person:
        person.read_until("> ")
        person.type("one\n")
        person.read_until("small heard one")
        person.read_until("> ")
        person.type("wait\n")
        person.read_until("small heard ")
        person.process.send_signal(signal.SIGINT)
        person.read_until("(stopped)")
        assert server.left.wait(SECONDS), "the answer was not broken off"
        person.read_until("> ")
        person.type("busy\n")
        person.read_until("The model is busy.")
        person.read_until("> ")
        person.type("two\n")
        person.read_until("small heard two")
        person.read_until("> ")
        person.type("\x04")
        assert person.process.wait(SECONDS) == 0
    said = [message["content"] for message in server.asked[-1]["messages"]]
    assert said == ["one", "small heard one", "wait", "small heard ", "two"]


def test_a_person_gives_the_results_of_calls(server: ChatServer, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    server.asked.clear()
    with terminal(server, "small", "--tools", str(tmp_path / "tools.json")) as person:
        person.read_until("> ")
        person.type("weather\n")
        shown = person.read_until("result> ")
        assert 'Which city?\r\nget_weather({"city": "Oslo"})' in shown
        person.type("sun\n")
        person.read_until("small heard sun")
        person.read_until("> ")
        person.type("weather\n")
        person.read_until("result> ")
        person.type("\x04")
        person.read_until("> ")
        person.type("two\n")
        person.read_until("small heard two")
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}, "type": "function"}
    said = [
        {"role": "user", "content": "weather"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Which city?",
            "tool_calls": [{"id": "call_1", **call}],
        },
        {"role": "tool", "content": "sun", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "small heard sun"},
        {"role": "user", "content": "weather"},
        {"role": "user", "content": "two"},
    ]
    assert server.asked[-1]["messages"] == said
    assert all(asked["tools"] == tools for asked in server.asked)


def test_calls_and_thoughts_for_scripts(server: ChatServer) -> None:
    told = json.loads(chat(server, "small", "--once", "weather", "--json").output)
    assert (told["content"], told["reasoning_content"]) == ("", "Which city?")
    assert told["tool_calls"][0]["function"]["arguments"] == '{"city": "Oslo"}'
    assert chat(server, "small", "--once", "weather").output == 'get_weather({"city": "Oslo"})\n'


def test_two_models_are_shown_side_by_side(server: ChatServer) -> None:
    with terminal(server, "small", "--against", "large") as person:
        person.read_until("> ")
        person.type("hi\n")
        shown = person.read_until("> ")
        assert re.search(r"small +large *\r?\n *small heard hi +large heard hi", shown), shown
        person.type("wait\n")
        person.read_until("large heard ")
        person.process.send_signal(signal.SIGINT)
        person.read_until("(stopped)")
        person.read_until("> ")
        person.type("/quit\n")
        assert person.process.wait(SECONDS) == 0


def test_a_person_is_told_at_once_that_there_is_no_such_model(server: ChatServer) -> None:
    with OpenAI(base_url=server.url, api_key="k") as client, pytest.raises(NotFoundError, match="'none'"):
        _converse(client, [Talk(client, "none", None, {})])
