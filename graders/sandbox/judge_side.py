"""Runs a test where no line of the completion ever was, and tells what to ask of it, or the verdict.

Loaded inside the sandbox only: standard library only. The completion's names stand for `Remote` objects. What is done to one is noted, to be asked of the completion; where the reply is known already, its value
takes the place, made here of built-in kinds. While a reply is missing, asserts are let pass, so that one run
finds as many questions as it can. A run that missed none is the verdict.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import operator
from typing import Any, NoReturn

from graders.sandbox.transport import decode, encode

_MOST_ASKED = 20_000
_MOST_AT_ONCE = 2000
"""Questions without replies in one run: a loop that waits for a reply would ask for ever."""
_MOST_DEPTH = 16
"""How deep a question may be about the result of a question about a result that is missing."""
_FIRST_ITEMS = 64
_LET_PASS = object()


class Missing(BaseException):
    """Ends the part of a test that cannot go on without a reply."""


class Beyond(BaseException):
    """Says that a test gives the completion something that cannot be sent there."""


class _Conversation:
    """Holds what is asked, and the questions and replies of an earlier run of the same test.

    Questions are called by their place: `#3` is the result of the fourth, `r3.0` the first object inside of it.
    """

    def __init__(self, known: list[list[Any]]) -> None:
        self.known = known
        self.at = 0
        self.places: dict[str, str] = {}
        """Places of known questions, and where they are asked now."""
        self.passed_over: set[str] = set()
        self.asked: list[list[Any]] = []
        self.is_open = False
        self.asserts = 0
        self.beyond = ""

    def ask(self, action: str, remote: Remote, *arguments: Any, **named: Any) -> Any:
        """Returns the reply as a value; a `Remote` where there is none yet, or for an object."""
        if remote._cherry_is_missing and (
            action not in ("call", "get") or remote._cherry_depth >= _MOST_DEPTH
        ):
            self.miss()
        texts = [[remote._cherry_text], *(encode(one, self._sent) for one in arguments)]
        question = [action, texts, {key: encode(one, self._sent) for key, one in named.items()}]
        place = len(self.asked)
        if place >= _MOST_ASKED:
            self._give_up("it asks too much")
        self.asked.append(question)
        reply = None if self.is_open else self._known_reply(question, place)
        if reply is not None:
            return self._value(reply, place, arguments)
        if self.is_open and place >= _MOST_AT_ONCE:
            self.miss()
        self.is_open = True
        return Remote(f"#{place}", depth=remote._cherry_depth + 1, is_missing=True)

    def miss(self) -> NoReturn:
        """Ends what cannot go on without a reply."""
        self.is_open = True
        raise Missing

    def _known_reply(self, question: list[Any], place: int) -> list[Any] | None:
        """Returns the known reply to a question; questions that a plain value has answered are passed over."""
        while self.at < len(self.known):
            before, reply = self.known[self.at]
            here = f"#{self.at}"
            self.at += 1
            if self._is_same(before, question):
                self.places[here] = f"#{place}"
                return list(reply)
            target = before[1][0][0]
            if target not in self.passed_over and not self._is_plain(target):
                return None
            self.passed_over.add(here)
        return None

    def _is_plain(self, text: str) -> bool:
        """Tells whether a question was about a result that turned out to be a value, which is asked here."""
        return text[:1] == "#" and self._texts_of(text)[0][:1] not in ("r", "!")

    def _texts_of(self, text: str) -> list[str]:
        return list(self.known[int(text[1:])][1][0])

    def _is_same(self, before: list[Any], now: list[Any]) -> bool:
        return (
            before[0] == now[0]
            and len(before[1]) == len(now[1])
            and before[2].keys() == now[2].keys()
            and all(self._are_same(one, other) for one, other in zip(before[1], now[1], strict=True))
            and all(self._are_same(before[2][key], now[2][key]) for key in now[2])
        )

    def _are_same(self, before: list[str], now: list[str]) -> bool:
        """Tells whether texts mean the same: a result that was missing may be known by now."""
        if [self._moved(text) for text in before] == now:
            return True
        if len(before) != 1 or before[0][:1] != "#":
            return False
        return [self._moved(text) for text in self._texts_of(before[0])] == now

    def _moved(self, text: str) -> str:
        """Returns what a known result is called now."""
        if text[:1] == "#":
            return self.places.get(text, "")
        if text[:1] == "r":
            place, _, rest = text[1:].partition(".")
            return f"r{self.places.get('#' + place, '#')[1:]}.{rest}"
        return text

    def _sent(self, value: Any) -> str:
        """Returns what a remote object is called; nothing else goes there without a text of its own."""
        if type(value) is not Remote:
            self._give_up(f"it gives the answer an object of the kind '{type(value).__name__}'")
        return str(value._cherry_text)

    def _give_up(self, why: str) -> NoReturn:
        self.beyond = why
        raise Beyond(why)

    def _value(self, reply: list[Any], place: int, arguments: tuple[Any, ...]) -> Any:
        texts, changed = reply
        for which, now in changed:
            _change(arguments[which - 1], decode(now, self._met, is_rich=True))
        if texts[:1] == ["!"]:
            raise _exception(texts[1], texts[2:])
        if len(texts) == 1 and texts[0][:1] == "r":
            return Remote(f"#{place}")  # as it is called while the reply is missing
        return decode(texts, self._met, is_rich=True)

    def _met(self, text: str) -> Any:
        if text[:1] != "r":
            raise ValueError("it refers to nothing")
        return Remote(self._moved(text))


_kinds: dict[str, type[BaseException]] = {}
"""Kinds of exceptions of the completion's, by name."""


def _exception(message: str, names: list[str]) -> BaseException:
    """Returns an exception of a kind that is called like one of the completion's, and of the same built-in kind."""
    *own, known = names
    kind: Any = getattr(builtins, known, Exception)
    if kind in (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError):
        kind = UnicodeError
    for name in reversed(own):
        kind = _kinds.setdefault(name, type(name, (kind,), {}))
    return kind(message)  # type: ignore[no-any-return]


def _change(argument: Any, now: Any) -> None:
    """Makes an argument what it became where it was sent to; lists and dictionaries inside stay the same ones."""
    if isinstance(argument, list):
        argument[:] = [_kept(*pair) for pair in zip(argument, now, strict=False)] + now[len(argument) :]
    elif isinstance(argument, bytearray):
        argument[:] = now
    elif isinstance(argument, dict):
        changed = {key: _kept(argument.get(key), value) for key, value in now.items()}
        argument.clear()
        argument.update(changed)
    elif isinstance(argument, set):
        argument.clear()
        argument.update(now)


def _kept(before: Any, now: Any) -> Any:
    if type(before) is not type(now) or not isinstance(before, list | dict | set | bytearray):
        return now
    _change(before, now)
    return before


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


def judge(test: str, names: list[str], kinds: list[str], imports: list[str], known: list[list[Any]]) -> str:
    """Returns the JSON of what came of a test: `passed`, `ask` with questions, `failed` or `beyond` with why."""
    global talk
    talk = _Conversation(known)
    namespace: dict[str, Any] = {"__name__": "test", "_cherry_assert": _Assert()}
    for line in imports:
        with contextlib.suppress(Exception):
            exec(line, namespace)  # noqa: S102
    namespace.update((name, Remote("g" + name)) for name in names)
    _kinds.clear()
    for name in kinds:
        namespace[name] = _kinds.setdefault(name, type(name, (Exception,), {}))
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
