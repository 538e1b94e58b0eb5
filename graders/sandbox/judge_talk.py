"""Knows what a test asked of a completion and what was replied. Loaded inside the sandbox only.

A test runs again and again, each time with the replies to what it asked before, until it misses none.
"""

from __future__ import annotations

import builtins
from typing import Any, NoReturn

from graders.sandbox.transport import decode, encode

_MOST_ASKED = 20_000
_MOST_AT_ONCE = 2000
"""Questions without replies in one run: a loop that waits for a reply would ask for ever."""
_MOST_DEPTH = 16
"""How deep a question may be about the result of a question about a result that is missing."""


class Missing(BaseException):
    """Ends the part of a test that cannot go on without a reply."""


class Beyond(BaseException):
    """Says that a test gives the completion something that cannot be sent there."""


class Conversation:
    """Holds what is asked, and the questions and replies of an earlier run of the same test.

    `remote` is `judge_side.Remote`, which stands for an object of the completion's, or for a missing reply.
    Questions are called by their place: `#3` is the result of the fourth, `r3.0` the first object in it.
    """

    def __init__(self, known: list[list[Any]], remote: type[Any]) -> None:
        self._remote = remote
        self.known = known
        self.at = 0
        self.places: dict[str, str] = {}
        """Places of known questions, and where they are asked now."""
        self.passed_over: set[str] = set()
        self.asked: list[list[Any]] = []
        self.is_open = False
        self.asserts = 0
        self.beyond = ""

    def ask(self, action: str, remote: Any, *arguments: Any, **named: Any) -> Any:
        """Returns the reply as a value; a remote object where there is none yet, or for an object."""
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
        return self._remote(f"#{place}", depth=remote._cherry_depth + 1, is_missing=True)

    def miss(self) -> NoReturn:
        """Ends what cannot go on without a reply."""
        self.is_open = True
        raise Missing

    def _known_reply(self, question: list[Any], place: int) -> list[Any] | None:
        """Returns the known reply to a question; those that a plain value has answered are passed over."""
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
        if type(value) is not self._remote:
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
            return self._remote(f"#{place}")  # as it is called while the reply is missing
        return decode(texts, self._met, is_rich=True)

    def _met(self, text: str) -> Any:
        if text[:1] != "r":
            raise ValueError("it refers to nothing")
        return self._remote(self._moved(text))


kinds: dict[str, type[BaseException]] = {}
"""Kinds of exceptions of the completion's, by name."""


def _exception(message: str, names: list[str]) -> BaseException:
    """Returns an exception whose kinds are called like the completion's, down to the built-in one."""
    *own, known = names
    found = getattr(builtins, known, None)  # a name that the completion gives: of whatever it likes
    kind = found if isinstance(found, type) and issubclass(found, BaseException) else Exception
    if issubclass(kind, UnicodeError):
        kind = UnicodeError  # its kinds are made of more than a message
    if issubclass(kind, BaseExceptionGroup):
        kind = Exception
    for name in reversed(own):
        kind = kinds.setdefault(name, type(name, (kind,), {}))
    return kind(message)


def _change(argument: Any, now: Any) -> None:
    """Makes an argument what it became where it was sent to; lists inside stay the same ones."""
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
