"""Runs a test where no line of the completion ever was, and tells what to ask of it, or the verdict.

Loaded inside the sandbox only: standard library only. The completion's names stand for `Remote` objects. What
is done to one is noted, to be asked of the completion; where the reply is known already, its value takes the
place, made here of built-in kinds. While a reply is missing, asserts are let pass, so that one run finds as
many questions as it can. A run that missed none is the verdict.
"""

from __future__ import annotations

import ast
import contextlib
import json
import operator
from typing import Any

from graders.sandbox.judge_talk import Beyond, Conversation, Missing, kinds

_LET_PASS = object()
_FIRST_ITEMS = 64
"""Items that are taken of an iterator at first: few more than a test looks at may be computed in vain."""


class Remote:
    """Stands for an object of the completion's, or a reply that is missing.

    It is equal to nothing that is here, and no number: an object that claims to be both gains nothing.
    """

    def __init__(self, text: str, *, depth: int = 0, is_missing: bool = False) -> None:
        object.__setattr__(self, "_cherry_text", text)
        object.__setattr__(self, "_cherry_depth", depth)
        object.__setattr__(self, "_cherry_is_missing", is_missing)

    def _cherry_resolved(self) -> Any:
        """Returns the value of a name, if it is one; an object stays `Remote`."""
        return talk.ask("value", self) if self._cherry_text[:1] == "g" else self

    def _cherry_object(self) -> Any:
        """Returns the same; ends what needs a reply that is missing."""
        found = self._cherry_resolved()
        if type(found) is Remote and found._cherry_is_missing:
            talk.miss()
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_cherry") or (
            name.startswith("__") and name.endswith("__") and name != "__name__"
        ):
            raise AttributeError(name)
        return talk.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        talk.ask("set", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return talk.ask("call", self, *arguments, **named)

    def __eq__(self, other: object) -> Any:
        mine, other = self._cherry_pair(other)
        if mine is _LET_PASS:
            return True
        if type(mine) is not Remote:
            return mine == other
        return type(other) is Remote and talk.ask("eq", mine, other) is True

    def __ne__(self, other: object) -> Any:
        mine, other = self._cherry_pair(other)
        if mine is _LET_PASS:
            return True
        return mine != other if type(mine) is not Remote else not mine == other

    def _cherry_pair(self, other: Any) -> tuple[Any, Any]:
        """Returns both sides of a comparison; `_LET_PASS` first where an assert misses a reply."""
        mine = self._cherry_resolved()
        if type(other) is Remote:
            other = other._cherry_resolved()
        if any(type(one) is Remote and one._cherry_is_missing for one in (mine, other)):
            talk.is_open = True
            if talk.asserts:
                return _LET_PASS, other
            raise Missing
        return mine, other

    def _cherry_order(self, action: str, other: Any) -> Any:
        mine, other = self._cherry_pair(other)
        if mine is _LET_PASS:
            return True
        if type(mine) is not Remote:
            return _OPERATORS[action](mine, other)
        if type(other) is not Remote:
            return NotImplemented
        return talk.ask(action, mine, other) is True

    def _cherry_sum(self, action: str, other: Any, *, is_right: bool = False) -> Any:
        """Returns the result of an operator, which for objects must be an object, and no number of theirs."""
        mine = self._cherry_object()
        other = other._cherry_object() if type(other) is Remote else other
        if type(mine) is not Remote:
            return _OPERATORS[action](other, mine) if is_right else _OPERATORS[action](mine, other)
        if is_right:
            return NotImplemented
        found = talk.ask(action, mine, other)
        return found if type(found) is Remote else NotImplemented

    def _cherry_alone(self, action: str) -> Any:
        mine = self._cherry_object()
        if type(mine) is not Remote:
            return _OPERATORS[action](mine)
        found = talk.ask(action, mine)
        if type(found) is not Remote:
            raise TypeError(f"an object of the answer's has no '{action}' here")
        return found

    def _cherry_do(self, action: str, *arguments: Any) -> Any:
        mine = self._cherry_object()
        if type(mine) is not Remote:
            return _OPERATORS[action](mine, *arguments)
        return talk.ask(action, mine, *arguments)

    def __hash__(self) -> int:
        return hash(self._cherry_text)

    def __bool__(self) -> bool:
        mine = self._cherry_resolved()
        if type(mine) is not Remote:
            return bool(mine)
        if mine._cherry_is_missing:
            if talk.asserts:
                talk.is_open = True
                return True
            talk.miss()
        return talk.ask("bool", mine) is not False

    def __len__(self) -> int:
        found = self._cherry_do("len")
        return found if type(found) is int else talk.miss()

    def __iter__(self) -> Any:
        mine = self._cherry_object()
        return iter(mine) if type(mine) is not Remote else _items(talk.ask("iter", mine))

    def __next__(self) -> Any:
        return self._cherry_do("next")

    def __contains__(self, one: Any) -> bool:
        return any(each is one or each == one for each in self)

    def __getitem__(self, key: Any) -> Any:
        return self._cherry_do("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._cherry_do("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._cherry_do("delitem", key)

    def __str__(self) -> str:
        return self._cherry_text_of("str")

    def __repr__(self) -> str:
        return self._cherry_text_of("repr")

    def _cherry_text_of(self, action: str) -> str:
        found = self._cherry_do(action)
        return found if type(found) is str else talk.miss()

    def __instancecheck__(self, one: Any) -> bool:
        if type(one) is not Remote:
            return False
        found = talk.ask("isinstance", one._cherry_object(), self)
        return found if type(found) is bool else talk.miss()

    def __enter__(self) -> Any:
        return talk.ask("call", talk.ask("get", self, "__enter__"))

    def __exit__(self, *_: object) -> None:
        talk.ask("call", talk.ask("get", self, "__exit__"), None, None, None)


def _items(items: Any) -> Any:
    """Yields the items of an iterator of the completion's, taken there in steps that grow."""
    step = _FIRST_ITEMS
    while True:
        if type(items) is not Remote or items._cherry_is_missing:
            talk.miss()
        taken = talk.ask("take", items, step)
        if type(taken) is not list:
            talk.miss()
        yield from taken
        if len(taken) < step:
            return
        step *= 8


def _number(kind: Any) -> Any:
    def made(self: Remote, *arguments: Any) -> Any:
        mine = self._cherry_object()
        if type(mine) is Remote:
            raise TypeError(f"an object of the answer's is no number here ({kind.__name__})")
        return kind(mine, *arguments)

    return made


_OPERATORS: dict[str, Any] = {"len": len, "next": next, "str": str, "repr": repr, "abs": abs}


def _equip() -> None:
    """Gives `Remote` the methods that are alike."""
    order, alone = ("lt", "le", "gt", "ge"), ("neg", "pos", "invert", "abs")
    sums = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor")
    for name in ("getitem", "setitem", "delitem", *order, *sums, *alone):
        _OPERATORS[name] = getattr(operator, name)
    for name in order:
        setattr(Remote, f"__{name}__", lambda self, other, name=name: self._cherry_order(name, other))
    for name in sums:
        plain = name.rstrip("_")
        setattr(Remote, f"__{plain}__", lambda self, other, name=name: self._cherry_sum(name, other))
        setattr(
            Remote,
            f"__r{plain}__",
            lambda self, other, name=name: self._cherry_sum(name, other, is_right=True),
        )
    for name in alone:
        setattr(Remote, f"__{name}__", lambda self, name=name: self._cherry_alone(name))
    for kind in (int, float, complex, round):
        setattr(Remote, f"__{kind.__name__}__", _number(kind))
    Remote.__index__ = _number(operator.index)  # type: ignore[attr-defined]


_equip()
talk = Conversation([], Remote)


class _LettingPass(ast.NodeTransformer):
    """Lets asserts pass that miss a reply."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        guarded = ast.parse("with _cherry_assert:\n    pass").body[0]
        assert isinstance(guarded, ast.With)
        guarded.body = [node]
        return ast.fix_missing_locations(ast.copy_location(guarded, node))


class _Assert(contextlib.AbstractContextManager[None]):
    """Surrounds an assert of the test."""

    def __enter__(self) -> None:
        talk.asserts += 1

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        talk.asserts -= 1
        return kind is not None and talk.is_open and not isinstance(error, Beyond)


def judge(test: str, names: list[str], caught: list[str], imports: list[str], known: list[list[Any]]) -> str:
    """Returns the JSON of what came of a test: `passed`, `ask` with questions, `failed` or `beyond`."""
    global talk
    talk = Conversation(known, Remote)
    namespace: dict[str, Any] = {"__name__": "test", "_cherry_assert": _Assert()}
    for line in imports:
        with contextlib.suppress(Exception):
            exec(line, namespace)  # noqa: S102
    namespace.update((name, Remote("g" + name)) for name in names)
    for name in caught:
        namespace[name] = kinds.setdefault(name, type(name, (Exception,), {}))
    why: list[Any] = ["passed"]
    try:
        tree = _LettingPass().visit(ast.parse(test))
        exec(compile(tree, "<test>", "exec"), namespace)  # noqa: S102
    except Beyond as beyond:
        why = ["beyond", str(beyond)]
    except BaseException as error:
        why = ["failed", type(error).__name__[:100], _said(error)]
    if talk.beyond:
        why = ["beyond", talk.beyond]
    elif talk.is_open:
        why = ["ask", talk.asked]
    return json.dumps(why)


def _said(error: BaseException) -> str:
    try:
        return str(error)[:200].encode("utf-8", "replace").decode()
    except BaseException:
        return ""
