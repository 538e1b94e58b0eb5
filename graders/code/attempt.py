"""Tries one completion in the sandbox: runs it, asks it for values, and has tests judged where it is not."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

from graders.code.answer_names import from_answer
from graders.code.frame import framed
from graders.code.python_tests import PythonTest
from graders.sandbox.transport import Opaque, Unreadable, decode
from graders.services import Limits, Outcome, Program, Sandbox
from graders.types import FailureKind, GradeFailed

MOST_ROUNDS = 32
"""Times that a test may ask for more: once for a list of calls, and for each that needs a result."""
_LOOK_AGAIN = 2
"""Round in which a test is looked at again: one that asks for a plain list of calls has ended by then."""
_PLAN_SECONDS = 10.0
MOST_REMEMBERED = 4096
"""Verdicts and questions that are remembered: of all rows of a training, and of some completions of each."""
RESULT_BYTES = 2 * 2**20
"""Most that a completion may tell: a list of 200,000 numbers, which take 0.2 s to read here."""


_FAULTS = {
    "time": "ran longer than its time limit",
    "memory": "ran out of memory",
    "no_result": "gave no result",
    "output": "wrote too much",
}


class TestFailed(Exception):
    """Says why a completion does not pass a test. The text goes on the sentence "The test ..."."""

    __test__ = False  # pytest takes it for tests otherwise


class Remembered:
    """Keeps what tests asked and judged, by all that it depends on; the most recently used.

    It is safe to use from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Any] = OrderedDict()

    def of(self, key: str, make: Callable[[], Any]) -> Any:
        """Returns what is known for a key, or makes it."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
                return self._known[digest]
        made = make()
        with self._lock:
            self._known[digest] = made
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return made


@dataclass
class Attempt:
    """Tries one completion on one test.

    Attributes:
        code: the completion's code, behind what is put before it.
        seconds: how long the test may take.
        memory_bytes: how much it may take.
    """

    sandbox: Sandbox
    remembered: Remembered
    code: str
    seconds: float
    memory_bytes: int

    def __post_init__(self) -> None:
        self._started = perf_counter()

    @cached_property
    def _module(self) -> str:
        """Returns the code; as a solution for LeetCode it may use the names that are given there."""
        return framed(self.code) if "class Solution" in self.code else self.code

    def run(self, stdin: str) -> Outcome:
        """Runs the completion as a program. Raises `TestFailed`."""
        return _run(self.sandbox, Program(self.code, stdin=stdin, limits=self._limits()))

    def ask(self, function: str, arguments: Sequence[Any]) -> list[Any]:
        """Returns the replies of the completion's side. Raises `TestFailed`."""
        return self._replies(self._module, function, arguments)

    def call(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """Returns the reply to a call of a function, within LeetCode's frame. Raises `TestFailed`."""
        return self._replies(framed(self.code, but=name), "call", [name, arguments])

    def _replies(self, module: str, function: str, arguments: Sequence[Any]) -> list[Any]:
        program = Program(module, function, arguments, harness="answer", limits=self._limits())
        told = _run(self.sandbox, program).value
        try:
            replies = json.loads(told)
        except (TypeError, ValueError, RecursionError):
            raise TestFailed("gave no result") from None
        if not isinstance(replies, list) or not replies:
            raise TestFailed("gave no result")
        return replies

    def judge(self, test: PythonTest) -> None:
        """Has a test judged where the completion is not, by its replies to what the test asks.

        A test that gives it what cannot be sent there runs beside it. Raises `TestFailed`.
        """
        if test.beside:
            self._beside(test)
            return
        known: list[list[Any]] = []
        for turn in range(MOST_ROUNDS):
            match self._ask_test(test, known):
                case ["passed"]:
                    return
                case ["failed", kind, message]:
                    raise TestFailed(f"raised {kind}" + (f": {message}" if message else ""))
                case ["ask", [*asked]] if not (turn == _LOOK_AGAIN and self._differs_by_itself(test)):
                    known = self._with_replies(asked)
                case _:
                    self._beside(test)
                    return
        raise TestFailed(f"asks more than {MOST_ROUNDS} times")

    def _ask_test(self, test: PythonTest, known: list[list[Any]]) -> Any:
        return ask_test(self.sandbox, self.remembered, test, self.code, known, self._limits())

    def _differs_by_itself(self, test: PythonTest) -> bool:
        """Tells whether a test asks something else each time it runs, whatever the replies."""
        return bool(
            self._ask_test(test, [])
            != ask_test(self.sandbox, Remembered(), test, self.code, [], self._limits())
        )

    def _with_replies(self, asked: list[Any]) -> list[list[Any]]:
        """Returns questions with the completion's replies to them. Raises `TestFailed`."""
        replies = self.ask("perform", [asked])
        if len(replies) != len(asked) or not all(_is_reply(one) for one in replies):
            raise TestFailed("gave no result")
        return [[question, reply] for question, reply in zip(asked, replies, strict=True)]

    def _beside(self, test: PythonTest) -> None:
        word = secrets.token_hex(16)
        program = Program(self._module, "beside", [test.text, word], harness="answer", limits=self._limits())
        if _run(self.sandbox, program).value != word:
            raise TestFailed("did not reach its end")

    def _limits(self) -> Limits:
        left = self.seconds - (perf_counter() - self._started)
        if left <= 0:
            raise TestFailed(_FAULTS["time"])
        return Limits(left, max(left, 0.1), self.memory_bytes, result_bytes=RESULT_BYTES)


def ask_test(
    sandbox: Sandbox,
    remembered: Remembered,
    test: PythonTest,
    code: str,
    known: list[list[Any]],
    limits: Limits,
) -> Any:
    """Returns what came of a test where some replies are known: see `judge_side`. Raises `TestFailed`."""
    names, imports = from_answer(test, code)

    def judged() -> Any:
        packages = "\n    ".join((*imports, *test.imports))
        source = f"def _imports():\n    {packages or 'pass'}\n"  # by which a fork-server is chosen
        arguments = [test.text, names, sorted(test.kinds & set(names)), imports, known]
        program = Program(source, "judge", arguments, harness="judge", limits=limits)
        return json.loads(_run(sandbox, program).value)

    return remembered.of(json.dumps([test.text, names, imports, known]), judged)


def _run(sandbox: Sandbox, program: Program) -> Outcome:
    """Returns the outcome of a program that ran to its end.

    Raises `TestFailed`, or `GradeFailed` if the sandbox could not run it.
    """
    outcome = sandbox.run(program)
    if outcome.fault is None:
        return outcome
    if outcome.fault == "server":
        raise GradeFailed(FailureKind.PYTHON_SERVER, f"The sandbox could not run a test: {outcome.message}")
    raise TestFailed(_FAULTS.get(outcome.fault) or f"raised {_last_line(outcome.message)}")


def beside_of(sandbox: Sandbox, remembered: Remembered, test: PythonTest, code: str) -> str:
    """Returns why a test can only run beside the completion, as far as that shows before any reply."""
    if test.expected or test.beside:
        return "" if test.expected else test.beside
    try:
        verdict = ask_test(sandbox, remembered, test, code, [], Limits(_PLAN_SECONDS, _PLAN_SECONDS))
    except TestFailed:
        return ""
    return str(verdict[1]) if verdict[0] == "beyond" else ""


def value_of(told: Any) -> Any:
    """Returns the value that a completion's side told, or `Opaque`. Raises `TestFailed`."""
    if isinstance(told, list) and told[:1] == ["!"]:
        raise TestFailed("raised " + ": ".join(str(one) for one in (*told[2:3], *told[1:2]) if one)[:200])
    try:
        return decode(told)
    except (Unreadable, TypeError):
        return Opaque("value")


def _is_reply(reply: Any) -> bool:
    return (
        isinstance(reply, list)
        and len(reply) == 2
        and all(isinstance(part, list) for part in reply)
        and bool(reply[0])
        and all(isinstance(text, str) for text in reply[0])
    )


def _last_line(message: str) -> str:
    lines = message.strip().splitlines()
    return lines[-1][:200] if lines else "an error"
