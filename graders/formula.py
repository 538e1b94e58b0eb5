"""Parses and evaluates the formula language of `calculate_output`.

    expr   := term (("+" | "-") term)*
    term   := unary (("*" | "/") unary)*
    unary  := ("-" | "+") unary | power
    power  := atom ("^" unary)?                      right-associative
    atom   := NUMBER | NAME | NAME "(" expr ("," expr)* ")" | "(" expr ")"

Names are the sub-graders. `min` and `max` take one argument or more; `abs floor ceil exp sqrt log` take one;
`log` is natural. All arithmetic is in floats, and every intermediate result must be finite.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from graders.types import FailureKind, GradeFailed, GraderInvalid

MAX_BYTES = 1024
MAX_NODES = 64
MAX_NESTING = 64
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[-+*/^(),])|(?P<end>\Z))"
)
_Compiled = Callable[[Mapping[str, float]], float]
"""A compiled formula or part of one."""

_BINARY: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,
}
_SIGNS = {"-": -1.0, "+": 1.0}
_ONE_ARGUMENT: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_MANY_ARGUMENTS: dict[str, Callable[..., float]] = {"min": min, "max": max}


@dataclass(frozen=True)
class Number:
    """Stands for a number that is written in a formula."""

    value: float


@dataclass(frozen=True)
class Name:
    """Stands for the value of a sub-grader."""

    name: str


@dataclass(frozen=True)
class Operation:
    """Applies an operator or a function, by the mark or name that stands in the formula, to its operands.

    A sign before an operand is an operation with one.
    """

    symbol: str
    operands: tuple[Node, ...]


Node = Number | Name | Operation
"""A formula or part of one."""


@dataclass(frozen=True)
class Formula:
    """Holds a parsed formula. It is safe to share between threads."""

    text: str
    names: frozenset[str]
    tree: Node
    compiled: _Compiled

    @classmethod
    def parse(cls, text: str, known: frozenset[str]) -> Formula:
        """Compiles a formula over the `known` names. Raises `GraderInvalid`."""
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise GraderInvalid(f"The formula is longer than {MAX_BYTES} bytes.")
        parser = _Parser(text, known)
        tree = parser.whole()
        return cls(text, frozenset(parser.names), tree, _compiled(tree))

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Returns the finite result. Raises `GradeFailed` (formula_parse_error) where there is none."""
        try:
            return self.compiled(values)
        except (ArithmeticError, ValueError) as error:
            shown = ", ".join(f"{name} = {values[name]:g}" for name in sorted(self.names))
            raise GradeFailed(
                FailureKind.FORMULA_PARSE,
                f"The formula has no finite value ({error})" + (f" with {shown}." if shown else "."),
            ) from None


def _compiled(node: Node) -> _Compiled:
    match node:
        case Number(value):
            return lambda _: value
        case Name(name):
            return operator.itemgetter(name)
        case Operation(symbol, (operand,)) if symbol in _SIGNS:
            sign, inner = _SIGNS[symbol], _compiled(operand)
            return lambda values: sign * inner(values)
        case Operation(symbol, (left, right)) if symbol in _BINARY:
            apply, first, second = _BINARY[symbol], _compiled(left), _compiled(right)
            return lambda values: _finite(apply(first(values), second(values)))
        case Operation(symbol, operands) if symbol in _MANY_ARGUMENTS:
            choose, arguments = _MANY_ARGUMENTS[symbol], [_compiled(operand) for operand in operands]
            return lambda values: choose([argument(values) for argument in arguments])
        case Operation(symbol, (operand,)):
            function, argument = _ONE_ARGUMENT[symbol], _compiled(operand)
            return lambda values: float(function(argument(values)))
    raise AssertionError(node)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while True:
        found = _TOKEN.match(text, position)
        if found is None:
            where = position + len(text[position:]) - len(text[position:].lstrip())
            raise GraderInvalid(f"Unexpected '{text[where]}' at character {where + 1} of the formula.")
        kind = found.lastgroup or "end"
        yield _Token(kind, found[kind], found.start(kind))
        if kind == "end":
            return
        position = found.end()


class _Parser:
    """Parses by recursive descent; each method returns the tree of what it read."""

    def __init__(self, text: str, known: frozenset[str]) -> None:
        self.tokens = _tokens(text)
        self.token = next(self.tokens)
        self.known = known
        self.names: set[str] = set()
        self.nodes = 0
        self.nesting = 0

    def whole(self) -> Node:
        result = self.expression()
        if self.token.kind != "end":
            raise self.unexpected()
        return result

    def expression(self) -> Node:
        left = self.term()
        while self.token.text in ("+", "-"):
            left = self.binary(self.take(), left, self.term())
        return left

    def term(self) -> Node:
        left = self.unary()
        while self.token.text in ("*", "/"):
            left = self.binary(self.take(), left, self.unary())
        return left

    def unary(self) -> Node:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise GraderInvalid(f"The formula is nested more than {MAX_NESTING} levels deep.")
        if self.token.text in ("-", "+"):
            self.count()
            result: Node = Operation(self.take(), (self.unary(),))
        else:
            result = self.power()
        self.nesting -= 1
        return result

    def power(self) -> Node:
        base = self.atom()
        if self.token.text != "^":
            return base
        return self.binary(self.take(), base, self.unary())

    def atom(self) -> Node:
        kind, text, _ = token = self.token
        if kind == "number":
            self.take()
            return self.number(text)
        if kind == "name":
            self.take()
            return self.call(token) if self.token.text == "(" else self.name(token)
        if text == "(":
            self.take()
            inner = self.expression()
            self.expect(")")
            return inner
        raise self.unexpected()

    def number(self, text: str) -> Node:
        self.count()
        number = float(text)
        if not math.isfinite(number):
            raise GraderInvalid(f"The number {text} in the formula is out of range.")
        return Number(number)

    def name(self, token: _Token) -> Node:
        self.count()
        if token.text not in self.known:
            known = ", ".join(sorted(self.known))
            raise GraderInvalid(f"Unknown name '{token.text}' in the formula. The graders are: {known}.")
        self.names.add(token.text)
        return Name(token.text)

    def call(self, token: _Token) -> Node:
        self.count()
        arguments = self.arguments()
        if token.text not in _MANY_ARGUMENTS | _ONE_ARGUMENT:
            known = ", ".join(sorted(_MANY_ARGUMENTS | _ONE_ARGUMENT))
            raise GraderInvalid(f"Unknown function '{token.text}' in the formula. Supported: {known}.")
        if token.text in _ONE_ARGUMENT and len(arguments) != 1:
            raise GraderInvalid(f"'{token.text}' in the formula takes one argument.")
        return Operation(token.text, tuple(arguments))

    def arguments(self) -> list[Node]:
        self.expect("(")
        found = [self.expression()]
        while self.token.text == ",":
            self.take()
            found.append(self.expression())
        self.expect(")")
        return found

    def binary(self, mark: str, left: Node, right: Node) -> Node:
        self.count()
        return Operation(mark, (left, right))

    def take(self) -> str:
        taken = self.token.text
        self.token = next(self.tokens)
        return taken

    def expect(self, mark: str) -> None:
        if self.token.text != mark:
            raise self.unexpected()
        self.take()

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise GraderInvalid(f"The formula has more than {MAX_NODES} numbers, names and operations.")

    def unexpected(self) -> GraderInvalid:
        if self.token.kind == "end":
            return GraderInvalid("The formula ends too early.")
        return GraderInvalid(
            f"Unexpected '{self.token.text}' at character {self.token.position + 1} of the formula."
        )


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise OverflowError("result out of range")
    return number
