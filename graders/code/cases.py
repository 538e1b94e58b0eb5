"""Reads the tests of a row, in any form that published data has, as programs to run and verdicts to give."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders.code.attempt import Attempt, TestFailed, value_of
from graders.code.output import same_output
from graders.code.python_tests import Expected, NotPython, PythonTest, integer, read_python_test
from graders.code.tests_spec import MAX_TESTS
from graders.code.values import same
from graders.sandbox.transport import Opaque
from graders.types import FailureKind, GradeFailed

MAX_TEST = 262_144
"""Characters of one test."""

Check = Callable[[Attempt], None]
"""Tries a test on a completion. Raises `TestFailed`."""


@dataclass(frozen=True)
class Case:
    """Describes one test.

    Attributes:
        shown: the test, short, for a person.
        check: tries it.
        judged: the test that is judged by running it; None where values are compared here.
    """

    shown: str
    check: Check
    judged: PythonTest | None = None


def read_cases(value: Any, function: str | None, tolerance: float) -> list[Case]:
    """Returns the tests of a row.

    Raises `GradeFailed` (invalid_variable_error) for tests that cannot be read.

    `function` is called by tests that name none of their own; `tolerance` is relative, for numbers.
    """
    listed = _listed(value)
    if not 1 <= len(listed) <= MAX_TESTS:
        raise unusable(f"are {len(listed)}; 1 to {MAX_TESTS} can be run")
    return [_case(one, at, function, tolerance) for at, one in enumerate(listed)]


def unusable(why: str) -> GradeFailed:
    """Returns the failure for tests that cannot be read. `why` goes on the sentence "The row's tests ..."."""
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's tests {why}.")


def loads(text: str) -> Any:
    """Returns the JSON value of a text, with whole numbers of any length. Raises `ValueError`."""
    try:
        return json.loads(text, parse_int=integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _listed(value: Any) -> list[Any]:
    """Returns a list of tests out of a list, its JSON, one text of Python, or inputs beside outputs."""
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")):
            return [value]
        try:
            value = loads(text)
        except ValueError as fault:
            raise unusable(f"are not JSON: {fault}") from None
    if (
        isinstance(value, dict)
        and isinstance(value.get("inputs"), list)
        and isinstance(value.get("outputs"), list)
    ):
        if len(value["inputs"]) != len(value["outputs"]):
            raise unusable("have not as many inputs as outputs")
        name = {"fn_name": value["fn_name"]} if value.get("fn_name") else {}
        pairs = zip(value["inputs"], value["outputs"], strict=True)
        return [{"input": one, "output": other, **name} for one, other in pairs]
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise unusable("are neither a list nor text")
    return value


def _case(test: Any, at: int, function: str | None, tolerance: float) -> Case:
    if isinstance(test, str):
        return _python_case(test, at, tolerance)
    if not isinstance(test, Mapping):
        raise unusable(f"hold something at {at} that is neither text nor an object")
    name = test.get("fn_name") or test.get("function") or function
    if "arguments" in test and "expected" in test:
        return _call_case(name, test["arguments"], test["expected"], at, tolerance)
    if "input" not in test or "output" not in test:
        raise unusable(
            f"have an object at {at} with neither 'input' and 'output' nor 'arguments' and 'expected'"
        )
    if name:
        return _call_case(name, _arguments(test["input"], at), _decoded(test["output"]), at, tolerance)
    return _stdio_case(test["input"], test["output"], at, tolerance)


def _arguments(given: Any, at: int) -> list[Any]:
    """Returns a list as it is, and of a text the JSON values, one on each line."""
    if isinstance(given, list):
        return given
    if not isinstance(given, str):
        raise unusable(f"have arguments at {at} that are neither a list nor text")
    try:
        return [loads(line) for line in given.split("\n") if line.strip()]
    except ValueError as fault:
        raise unusable(f"have arguments at {at} that are not one JSON value a line: {fault}") from None


def _decoded(output: Any) -> Any:
    if not isinstance(output, str):
        return output
    try:
        return loads(output)
    except ValueError:
        return output


def _call_case(name: Any, arguments: Any, expected: Any, at: int, tolerance: float) -> Case:
    if not isinstance(name, str) or not name.isidentifier():
        raise unusable(f"name no function to call at {at}")
    if not isinstance(arguments, list):
        raise unusable(f"have 'arguments' at {at} that are no list")

    def check(attempt: Attempt) -> None:
        got = value_of(attempt.call(name, arguments)[0])
        if same(expected, got, tolerance, is_json=True):
            return
        # published call tests often hold the result in a list of one
        is_one = isinstance(expected, list) and len(expected) == 1
        if not (is_one and same(expected[0], got, tolerance, is_json=True)):
            raise TestFailed(f"gave {_short(got)}, not {_short(expected)}")

    shown = f"{name}({', '.join(_short(one) for one in arguments)})"
    return Case(shown[:120], check)


def _python_case(text: str, at: int, tolerance: float) -> Case:
    """Compares on this side what a test of values expects; any other runs where the completion is not."""
    if len(text) > MAX_TEST:
        raise unusable(f"hold one at {at} of more than {MAX_TEST:,} characters")
    try:
        test = read_python_test(text)
    except NotPython as fault:
        raise unusable(f"hold one at {at} that is not Python ({fault})") from None
    if not test.is_check:
        raise unusable(
            f"hold one at {at} that checks nothing: it has no assert, call or raise outside functions"
        )
    shown = " ".join(text.split())[:120]
    if test.expected:
        return Case(shown, lambda attempt: _check_values(attempt, test.expected, tolerance))
    return Case(shown, lambda attempt: attempt.judge(test), test)


def _check_values(attempt: Attempt, expected: Sequence[Expected], tolerance: float) -> None:
    replies = attempt.ask("evaluate", [[one.source for one in expected]])
    for at, one in enumerate(expected):
        got = value_of(replies[at] if at < len(replies) else ["!", "nothing"])
        if one.is_truth:
            is_right = (
                isinstance(got, Opaque) == one.value if isinstance(got, Opaque) else bool(got) == one.value
            )
        elif one.is_itself:
            is_right = got is one.value
        else:
            is_right = same(one.value, got, tolerance, is_json=False)
        if not is_right:
            raise TestFailed(f"gave {_short(got)}" + (f" for {one.source[:80]}" if len(expected) > 1 else ""))


def _stdio_case(given: Any, expected: Any, at: int, tolerance: float) -> Case:
    stdin, wanted = (_lines(one, at) for one in (given, expected))

    def check(attempt: Attempt) -> None:
        outcome = attempt.run(stdin)
        if outcome.exit_code not in (0, None):
            raise TestFailed(f"ended with exit code {outcome.exit_code}")
        if not same_output(wanted, outcome.stdout, tolerance):
            raise TestFailed(f"printed {_short(outcome.stdout.strip())}, not {_short(wanted.strip())}")

    return Case(f"input {_short(stdin.strip())}", check)


def _lines(value: Any, at: int) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise unusable(f"have an 'input' or 'output' at {at} that is no text")
    return value


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        text = "a very large number"
    return text if len(text) <= 60 else text[:57] + "..."
