"""Runs a test where no line of the completion ever was, and tells what to ask of it, or the verdict.

Loaded inside the sandbox only, as text behind `transport.py`. The completion's names stand for `Remote`
objects. What is done to one is noted, to be asked of the completion; where the reply is known already, its value
takes the place, made here of built-in kinds. While a reply is missing, asserts are let pass, so that one run
finds as many questions as it can. A run that missed none is the verdict.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from graders.code.transport import decode, encode

_MOST_ASKED = 20_000
_LET_PASS = object()


class Missing(BaseException):
    """Ends the part of a test that cannot go on without a reply."""


class Beyond(BaseException):
    """Says that a test gives the completion something that cannot be sent there."""


class _Conversation:
    """Holds what was asked so far and is asked now, and what the replies were."""

    def __init__(self, known: list[list[Any]]) -> None:
        self.known = known
        self.asked: list[list[Any]] = []
        self.is_open = False
        self.asserts = 0
        self.beyond = ""

    def ask(self, action: str, remote: Remote, *arguments: Any, **named: Any) -> Any:
        """Returns the reply as a value; a `Remote` where there is none yet, or for an object."""
        if remote._cherry_is_missing and action not in ("call", "value"):
            self.miss()
        texts = [[remote._cherry_text], *(self._texts(one) for one in arguments)]
        keywords = {key: self._texts(one) for key, one in named.items()}
        question = [action, list(remote._cherry_path), texts, keywords]
        at = len(self.asked)
        if at >= _MOST_ASKED:
            self._give_up("it asks too much")
        self.asked.append(question)
        if at >= len(self.known) or self.known[at][0] != question:
            self.known = self.known[:at]
            self.is_open = True
            return Remote(f"#{at}", is_missing=True)
        return self._reply(at, arguments)

    def miss(self) -> NoReturn:
        """Ends what cannot go on without a reply."""
        self.is_open = True
        raise Missing

    def _texts(self, value: Any) -> list[str]:
        return encode(value._cherry_resolved() if type(value) is Remote else value, self._sent)

    def _sent(self, value: Any) -> str:
        """Returns what a remote object is called; nothing else goes there without a text of its own."""
        if type(value) is not Remote:
            self._give_up(f"it gives the answer an object of the kind '{type(value).__name__}'")
        if value._cherry_path:
            self._give_up("it gives the answer attributes of an object, inside of something else")
        return str(value._cherry_text)

    def _give_up(self, why: str) -> NoReturn:
        self.beyond = why
        raise Beyond(why)

    def _reply(self, at: int, arguments: tuple[Any, ...]) -> Any:
        texts, changed = self.known[at][1]
        if len(texts) == 1 and texts[0][:1] == "r":
            return Remote(f"#{at}")  # as it was called while the reply was missing
        for place, now in changed:
            _change(arguments[place - 1], decode(now, self._met, is_rich=True))
        if texts[:1] == ["!"]:
            _, name, known, message = texts
            kind = getattr(builtins, known, Exception)
            raise kind(message) if kind is not UnicodeDecodeError else ValueError(message)
        return decode(texts, self._met, is_rich=True)

    def _met(self, text: str) -> Any:
        if text[:1] != "r":
            raise ValueError("it refers to nothing")
        return Remote(text)


def _change(argument: Any, now: Any) -> None:
    """Makes an argument what it became where it was sent to."""
    if type(argument) is not type(now):
        return
    if isinstance(argument, list | bytearray):
        argument[:] = now
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(now)


class Remote:
    """Stands for an object of the completion's, or a reply that is missing.

    It is equal to nothing that is here, and no number: an object that claims to be both gains nothing.
    """

    def __init__(self, text: str, path: tuple[str, ...] = (), *, is_missing: bool = False) -> None:
        object.__setattr__(self, "_cherry_text", text)
        object.__setattr__(self, "_cherry_path", path)
        object.__setattr__(self, "_cherry_is_missing", is_missing)

    def _cherry_resolved(self) -> Any:
        """Returns the value of an attribute, or of a reply; ends what needs a reply that is missing."""
        return talk.ask("value", self) if self._cherry_path else self

    def _cherry_object(self) -> Any:
        found = self._cherry_resolved()
        if type(found) is Remote and found._cherry_is_missing:
            talk.miss()
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_cherry") or (
            name.startswith("__") and name.endswith("__") and name != "__name__"
        ):
            raise AttributeError(name)
        found = Remote(self._cherry_text, (*self._cherry_path, name), is_missing=self._cherry_is_missing)
        return found if name != "__name__" else talk.ask("value", found)

    def __setattr__(self, name: str, value: Any) -> None:
        talk.ask("setattr", self, name, value)

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
        """Returns both sides of a comparison; `_LET_PASS` first where an assert is let pass for a missing reply."""
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
        if type(mine) is not Remote:
            return iter(mine)
        found = talk.ask("take", mine)
        if type(found) is Remote:
            talk.miss()
        return iter(found)

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
        return talk.ask("call", Remote(self._cherry_text, (*self._cherry_path, "__enter__")))

    def __exit__(self, *_: object) -> None:
        talk.ask("call", Remote(self._cherry_text, (*self._cherry_path, "__exit__")), None, None, None)


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
    import operator

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
talk = _Conversation([])


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


def judge(test: str, names: list[str], imports: list[str], known: list[list[Any]]) -> str:
    """Returns the JSON of what came of a test: `passed`, `ask` with questions, `failed` or `beyond` with why."""
    global talk
    talk = _Conversation(known)
    namespace: dict[str, Any] = {"__name__": "test", "_cherry_assert": _Assert()}
    for line in imports:
        with contextlib.suppress(Exception):
            exec(line, namespace)  # noqa: S102
    namespace.update((name, Remote("g" + name)) for name in names)
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
