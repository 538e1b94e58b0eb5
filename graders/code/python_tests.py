"""Reads a test that is Python text: what of it can be asked of a completion, and compared on this side."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

MAX_DIGITS = 262_144
"""Digits of a whole number in a test: as many as a test has characters."""

_CHECKING = (ast.Assert, ast.Raise, ast.Expr, ast.If, ast.For, ast.While, ast.With, ast.Try)
"""Statements that can fail a test; one that only defines functions is passed by anything."""

_BESIDE = frozenset((
    "SystemRandom", "__annotations__", "__builtins__", "__closure__", "__code__", "__defaults__", "__dict__",
    "__doc__", "__globals__", "__module__", "asyncio", "builtins", "capsys", "eval", "exec", "gc",
    "getsource", "globals", "inspect", "locals", "mock", "monkeypatch", "multiprocessing", "now", "patch",
    "perf_counter", "redirect_stdout", "secrets", "setattr", "stdin", "stdout", "subprocess", "sys",
    "threading", "time", "tmp_path", "today", "traceback", "tracemalloc", "urandom", "uuid1", "uuid4",
    "warnings", "weakref",
))  # fmt: skip
"""Names that show that a test looks into the process of the answer, or runs differently each time."""
_UNSEEDED = frozenset(("seed", "Random", "default_rng", "RandomState"))
"""Functions that make chance anew where they are called with nothing."""

_SMALL: tuple[Any, ...] = (None, True, False, 0, 1, -1, 2, "", b"", (), [], {}, set(), frozenset())
"""Values that an answer could guess without being asked for them."""


class NotPython(Exception):
    """Says why a text is no Python."""


@dataclass(frozen=True)
class Expected:
    """Asks for one expression's value.

    Attributes:
        source: the expression, evaluated beside the completion.
        value: what it must be equal to; or, with `is_truth`, whether it must be true or false.
        is_truth: whether only its truth counts.
        is_itself: whether it must be that very value, as `is True` says: 1 is not.
    """

    source: str
    value: Any
    is_truth: bool = False
    is_itself: bool = False


@dataclass(frozen=True)
class PythonTest:
    """Describes a test that is Python text.

    Attributes:
        text: the test.
        imports: what it imports, wherever in it, a line each.
        expected: expressions and their values, if the test says no more than that.
        names: names that it takes from elsewhere.
        builtin_names: names of Python's own that it uses, which a completion might define.
        kinds: names among them that it takes for kinds of exceptions.
        beside: why it can only run beside the completion; empty if it need not.
        is_check: whether it has a statement that can fail it.
    """

    text: str
    imports: Sequence[str]
    is_check: bool
    expected: Sequence[Expected]
    names: frozenset[str]
    builtin_names: frozenset[str]
    kinds: frozenset[str]
    beside: str


@lru_cache(maxsize=1024)
def read_python_test(text: str) -> PythonTest:
    """Reads a test. Raises `NotPython`."""
    tree = _parsed(text)
    loaded, bound = _names(tree)
    free = loaded - bound
    known = frozenset(vars(builtins))
    return PythonTest(
        text,
        [ast.unparse(node) for node in ast.walk(tree) if _is_import(node)],
        any(isinstance(statement, _CHECKING) for statement in tree.body),
        tuple(_expected(tree) or ()),
        free - known,
        free & known,
        frozenset(_kinds(tree)),
        _why_beside(tree, loaded),
    )


def _why_beside(tree: ast.Module, loaded: frozenset[str]) -> str:
    """Returns why a test can only run beside the completion, as far as its text shows; else nothing."""
    used = set(loaded)
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await():
                return "it awaits something"
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[]) if name in _UNSEEDED:
                return f"it uses '{name}' without a seed"
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                used.update(part for one in names for part in one.name.split("."))
    return next((f"it uses '{name}'" for name in sorted(used & _BESIDE)), "")


def _kinds(tree: ast.Module) -> Iterator[str]:
    """Yields the names that a test catches, raises or waits for."""
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=ast.expr() as caught):
                yield from _names_in(caught)
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[first, *_]) if (
                "aises" in name
            ):
                yield from _names_in(first)
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name)) | ast.Name(id=name)):
                yield name


def _names_in(node: ast.AST) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "__future__")


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as fault:
        if "integer string conversion" not in str(fault):
            raise NotPython(type(fault).__name__) from None
    except (ValueError, MemoryError, RecursionError) as fault:
        raise NotPython(type(fault).__name__) from None
    try:
        return ast.parse(with_short_integers(text))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as fault:
        raise NotPython(type(fault).__name__) from None


def with_short_integers(text: str) -> str:
    """Returns Python in which whole numbers of more digits than Python reads are written in base 16."""
    return re.sub(r"(?<![\w.])\d{4000,}(?![\w.])", lambda found: hex(integer(found[0])), text)


def integer(text: str) -> int:
    """Returns the whole number that a text in base 10 means, of any length. Raises `ValueError`."""
    if len(text) <= 4000:
        return int(text)
    if len(text) > MAX_DIGITS or not text.lstrip("-").isdecimal():
        raise ValueError("it is no whole number, or a very long one")
    return int(Decimal(text))


def _names(tree: ast.Module) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names that a program reads, and those that it makes, wherever in it."""
    loaded, bound = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loaded.add(name)
            case ast.Name(id=name) | ast.ExceptHandler(name=str(name)) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import() | ast.ImportFrom():
                bound.update((one.asname or one.name).partition(".")[0] for one in node.names)
    return frozenset(loaded), frozenset(bound)


def _expected(tree: ast.Module) -> list[Expected] | None:
    """Returns what a test of asserts alone expects, also inside of one function that it calls; else None."""
    found: list[Expected] = []
    functions: dict[str, ast.FunctionDef] = {}
    own: set[str] = set()
    for statement in tree.body:
        match statement:
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                own |= {(one.asname or one.name).partition(".")[0] for one in imported}
            case ast.FunctionDef(name=name, decorator_list=[]) if _is_plain(statement.args):
                functions[name] = statement
            case ast.Expr(value=ast.Call(func=ast.Name(id=name), args=arguments, keywords=[])) if (
                name in functions
            ):
                function = functions[name]
                given = dict(zip((one.arg for one in function.args.args), arguments, strict=False))
                inner = _asserts(function.body, given) if len(given) == len(function.args.args) else None
                if inner is None:
                    return None
                found += inner
            case ast.Assign(targets=[ast.Name(id="METADATA")]):
                pass
            case _:
                inner = _asserts([statement], {})
                if inner is None:
                    return None
                found += inner
    names = {
        node.id for one in found for node in ast.walk(ast.parse(one.source)) if isinstance(node, ast.Name)
    }
    return None if names & (own | functions.keys()) else found


def _is_plain(arguments: ast.arguments) -> bool:
    more = (
        arguments.posonlyargs,
        arguments.kwonlyargs,
        arguments.defaults,
        arguments.vararg,
        arguments.kwarg,
    )
    return bool(arguments.args) and not any(more)


def _asserts(body: Sequence[ast.stmt], given: Mapping[str, ast.expr]) -> list[Expected] | None:
    found = []
    for statement in body:
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.Assert(test=ast.Constant(value=True)):
                continue
            case ast.Assert(test=test) if (one := _one(test, given)) is not None:
                found.append(one)
            case _:
                return None
    return found


def _one(test: ast.expr, given: Mapping[str, ast.expr]) -> Expected | None:
    """Returns what an assert expects of one expression, if that can be compared here."""
    match test:
        case ast.Call():
            return Expected(_source(test, given), True, is_truth=True) if _is_asked(test, given) else None
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call):
            return Expected(_source(call, given), False, is_truth=True) if _is_asked(call, given) else None
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as how], comparators=[right]):
            try:
                value = ast.literal_eval(right)
            except (ValueError, TypeError, MemoryError, RecursionError):
                return None
            if isinstance(how, ast.Is) and not (value is None or isinstance(value, bool)):
                return None
            if _is_asked(left, given) or (
                isinstance(how, ast.Eq) and _is_safe(left) and not _is_small(value)
            ):
                return Expected(_source(left, given), value, is_itself=isinstance(how, ast.Is))
    return None


def _is_small(value: Any) -> bool:
    return any(type(value) is type(one) and value == one for one in _SMALL) or isinstance(value, float)


def _is_asked(node: ast.expr, given: Mapping[str, ast.expr]) -> bool:
    """Tells whether an expression is a call of one name, or a method of what that makes, with literals."""
    if not isinstance(node, ast.Call) or not all(_is_literal(one) for one in _given_to(node)):
        return False
    match node.func:
        case ast.Name(id=name):
            return name in given or name not in vars(builtins)
        case ast.Attribute(value=ast.Call() as inner):
            return _is_asked(inner, given)
    return False


def _given_to(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args
    for keyword in call.keywords:
        yield keyword.value if keyword.arg else ast.Name("of_unknown_names")


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _is_safe(node: ast.expr) -> bool:
    """Tells whether an expression leaves no choice to an object that claims to be this and that."""
    unsafe = (ast.Compare, ast.BoolOp, ast.Not, ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield)
    return not any(isinstance(one, unsafe) for one in ast.walk(node))


class _PutIn(ast.NodeTransformer):
    """Puts what a function was given in the place of its parameters."""

    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self._given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._given.get(node.id, node)


def _source(node: ast.expr, given: Mapping[str, ast.expr]) -> str:
    if not given:
        return ast.unparse(node)
    return ast.unparse(_PutIn(given).visit(ast.parse(ast.unparse(node), mode="eval").body))
