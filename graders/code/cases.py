"""Reads the tests of a row, in any form that published data has, as programs to run and verdicts to give."""

from __future__ import annotations

import ast
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders import strict_json
from graders.code.tests_spec import MAX_TESTS
from graders.code.values import ENCODER, decode, same
from graders.services import Outcome
from graders.types import FailureKind, GradeFailed

MAX_TEST = 262_144
"""Characters of one test."""

_CHECKING = (ast.Assert, ast.Raise, ast.Expr, ast.If, ast.For, ast.While, ast.With, ast.Try)
"""Statements that can fail a test; one that only defines functions is passed by anything."""

_HELPERS = (
    ENCODER
    + """
def _cherry_call(name, arguments):
    place = globals()
    if name not in place and isinstance(place.get("Solution"), type):
        return _cherry_encode(getattr(place["Solution"](), name)(*arguments))
    return _cherry_encode(place[name](*arguments))

def _cherry_echo(word):
    return word
"""
)


@dataclass(frozen=True)
class Case:
    """Describes one test.

    Attributes:
        shown: the test, short, for a person.
        after: source that follows the completion's.
        function: what is then called, with `arguments`; None runs the whole as a program.
        stdin: what a program reads.
        failure: returns what was wrong with the outcome of a run that ended well; None if the test is passed.
    """

    shown: str
    failure: Callable[[Outcome], str | None]
    after: str = ""
    function: str | None = None
    arguments: Sequence[Any] = ()
    stdin: str = ""


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


def _listed(value: Any) -> list[Any]:
    """Returns a list of tests out of a list, its JSON, one text of Python, or inputs beside outputs."""
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith(("[", "{")):
            return [value]
        try:
            value = strict_json.loads(text)
        except strict_json.StrictJsonError as fault:
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
    return _stdio_case(test["input"], test["output"], at)


def _arguments(given: Any, at: int) -> list[Any]:
    """Returns a list as it is, and of a text the JSON values, one on each line."""
    if isinstance(given, list):
        return given
    if not isinstance(given, str):
        raise unusable(f"have arguments at {at} that are neither a list nor text")
    try:
        return [strict_json.loads(line) for line in given.split("\n") if line.strip()]
    except strict_json.StrictJsonError as fault:
        raise unusable(f"have arguments at {at} that are not one JSON value a line: {fault}") from None


def _decoded(output: Any) -> Any:
    if not isinstance(output, str):
        return output
    try:
        return strict_json.loads(output)
    except strict_json.StrictJsonError:
        return output


def _call_case(name: Any, arguments: Any, expected: Any, at: int, tolerance: float) -> Case:
    if not isinstance(name, str) or not name.isidentifier():
        raise unusable(f"name no function to call at {at}")
    if not isinstance(arguments, list):
        raise unusable(f"have 'arguments' at {at} that are no list")

    def failure(outcome: Outcome) -> str | None:
        got = decode(outcome.value)
        if same(expected, got, tolerance, is_json=True):
            return None
        if (
            isinstance(expected, list)
            and len(expected) == 1
            and same(expected[0], got, tolerance, is_json=True)
        ):
            return None  # published call tests often hold the result in a list of one
        return f"gave {_short(got)}, not {_short(expected)}"

    shown = f"{name}({', '.join(_short(one) for one in arguments)})"
    return Case(shown[:120], failure, _HELPERS, "_cherry_call", [name, arguments])


def _python_case(test: str, at: int, tolerance: float) -> Case:
    """Compares an assert of one value against a literal on this side.

    Any other Python runs beside the completion.
    """
    if len(test) > MAX_TEST:
        raise unusable(f"hold one at {at} of more than {MAX_TEST:,} characters")
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as fault:
        raise unusable(f"hold one at {at} that is not Python ({type(fault).__name__})") from None
    if not any(isinstance(statement, _CHECKING) for statement in tree.body):
        raise unusable(
            f"hold one at {at} that checks nothing: it has no assert, call or raise outside functions"
        )
    shown = " ".join(test.split())[:120]
    match tree.body:
        case [ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]))]:
            expected = _literal(right)
            source = ast.get_source_segment(test, left)
            if expected and source:
                return _value_case(shown, source, expected[0], tolerance)
    word = secrets.token_hex(16)

    def failure(outcome: Outcome) -> str | None:
        return None if outcome.value == word else "did not reach its end"

    return Case(shown, failure, f"\n{test}\n{_HELPERS}", "_cherry_echo", [word])


def _literal(node: ast.expr) -> list[Any] | None:
    """Returns the value of a literal, in a list of one; None for anything that must be computed."""
    try:
        return [ast.literal_eval(node)]
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None


def _value_case(shown: str, source: str, expected: Any, tolerance: float) -> Case:
    def failure(outcome: Outcome) -> str | None:
        got = decode(outcome.value)
        if same(expected, got, tolerance, is_json=False):
            return None
        return f"gave {_short(got)}"

    after = f"{_HELPERS}\ndef _cherry_value():\n    return _cherry_encode((\n{source}\n    ))\n"
    return Case(shown, failure, after, "_cherry_value")


def _stdio_case(given: Any, expected: Any, at: int) -> Case:
    stdin, wanted = (_lines(one, at) for one in (given, expected))

    def failure(outcome: Outcome) -> str | None:
        if outcome.exit_code not in (0, None):
            return f"ended with exit code {outcome.exit_code}"
        if same_output(wanted, outcome.stdout):
            return None
        return f"printed {_short(outcome.stdout.strip())}, not {_short(wanted.strip())}"

    return Case(f"input {_short(stdin.strip())}", failure, stdin=stdin)


def _lines(value: Any, at: int) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise unusable(f"have an 'input' or 'output' at {at} that is no text")
    return value


def same_output(expected: str, printed: str) -> bool:
    """Tells whether the lines are the same, or the numbers in them.

    White space at the ends of lines and empty lines at the end are ignored.
    """
    wanted, got = ([line.strip() for line in text.strip().split("\n")] for text in (expected, printed))
    if wanted == got:
        return True
    if len(wanted) != len(got):
        return False
    return all(_same_line(one, other) for one, other in zip(wanted, got, strict=True))


def _same_line(one: str, other: str) -> bool:
    left, right = one.split(), other.split()
    if len(left) != len(right):
        return False
    return all(a == b or _close(a, b) for a, b in zip(left, right, strict=True))


def _close(one: str, other: str) -> bool:
    if not (set(one + other) <= set("0123456789.-+eE")) or len(one) > 40 or len(other) > 40:
        return False
    try:
        return same(float(one), float(other), 1e-9, is_json=False)
    except ValueError:
        return False


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        text = "a very large number"
    return text if len(text) <= 60 else text[:57] + "..."
