"""Runs beside a completion's module and does what a test asks of it: expressions, calls, programs' values.

Loaded inside the sandbox only: standard library only. What it tells is the completion's word and no verdict:
the expected values are never here.
"""

from __future__ import annotations

import json
import operator
from itertools import islice
from typing import Any

from graders.sandbox.transport import decode, encode

program: dict[str, Any] = {}
"""The names of the completion's module, once it has run."""

_MOST_MESSAGE = 300
_OPERATORS = (
    "getitem", "setitem", "delitem", "eq", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv",
    "mod", "pow", "matmul", "and_", "or_", "xor", "neg", "pos", "invert",
)  # fmt: skip
_ACTIONS: dict[str, Any] = {
    "value": lambda one: one,
    "iter": iter,
    "take": lambda one, count: list(islice(one, count)),
    "get": getattr,
    "set": setattr,
    "isinstance": isinstance,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "abs": abs,
    **{name: getattr(operator, name) for name in _OPERATORS},
}


def evaluate(expressions: list[str]) -> str:
    """Returns the JSON of a list: each expression's texts, up to the first that raises."""
    told: list[Any] = []
    for expression in expressions:
        try:
            told.append(encode(_value(expression)))
        except BaseException as error:
            told.append(_raised(error))
            break
    return json.dumps(told)


def _value(expression: str) -> Any:
    return eval(compile(expression, "<test>", "eval"), program)  # noqa: S307 - what the locks are for


def call(name: str, arguments: list[Any]) -> str:
    """Returns the JSON of what a function, or a method of `Solution`, returns for arguments out of JSON."""
    try:
        if name not in program and isinstance(program.get("Solution"), type):
            return json.dumps([encode(getattr(program["Solution"](), name)(*arguments))])
        return json.dumps([encode(_named(name)(*arguments))])
    except BaseException as error:
        return json.dumps([_raised(error)])


def perform(asked: list[list[Any]]) -> str:
    """Returns the JSON of replies to what a test asks: [texts of the result, arguments it changed]."""
    kept: dict[str, Any] = {}
    results: list[Any] = []

    def keep(value: Any) -> str:
        text = f"r{len(results)}.{len(kept)}"
        kept[text] = value
        return text

    def refer(text: str) -> Any:
        if text[:1] == "g":
            return _named(text[1:])
        return kept[text] if text[:1] == "r" else results[int(text[1:])]

    told = []
    for action, texts, named in asked:
        arguments: list[Any] = []
        result: Any = None
        try:
            arguments = [decode(one, refer, is_rich=True) for one in texts]
            keywords = {name: decode(one, refer, is_rich=True) for name, one in named.items()}
            result = (operator.call if action == "call" else _ACTIONS[action])(*arguments, **keywords)
            told.append([encode(result, keep), _changed(arguments, texts)])
        except BaseException as error:
            told.append([_raised(error), _changed(arguments, texts)])
        results.append(result)
    return json.dumps(told)


def beside(test: str, word: str) -> str:
    """Runs a test in the place of the completion itself, and returns the word once it has reached its end."""
    exec(compile(test, "<test>", "exec"), program)  # noqa: S102
    return word


def _named(name: str) -> Any:
    if name in program:
        return program[name]
    raise NameError(f"name '{name}' is not defined")


def _changed(arguments: list[Any], texts: list[list[str]]) -> list[Any]:
    """Returns the arguments that a call has changed in place: [position, texts]."""
    found = []
    for at in range(1, len(arguments)):
        if (
            type(arguments[at]) in (list, dict, set, bytearray)
            and (now := encode(arguments[at])) != texts[at]
        ):
            found.append([at, now])
    return found


def _raised(error: BaseException) -> list[str]:
    """Returns what stands for an exception: its message, and its kinds up to the built-in one."""
    names: list[str] = []
    for kind in type(error).__mro__:
        names.append(kind.__name__[:_MOST_MESSAGE])
        if kind.__module__ == "builtins":
            break
    try:
        message = str(error)[:_MOST_MESSAGE]
    except BaseException:
        message = ""
    return ["!", message.encode("utf-8", "replace").decode(), *names]
