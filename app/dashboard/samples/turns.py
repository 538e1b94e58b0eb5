"""Turns prompts and completions into what a page shows of them: turns, with thoughts and calls apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.rollouts.models import Rollout
from graders.thoughts import answer_of

IN_LIST, ALONE = 4_000, 300_000
"""Characters of a text that are shown where many completions are, and where one is. Chosen, not measured."""
MOST_TURNS = 60
MOST_CALLS = 20
SHORT = 600
"""Characters of a system message from which on it is folded."""


class Cut(NamedTuple):
    """A text as far as it is shown, and how many characters are left out."""

    text: str
    left: int = 0


class Call(NamedTuple):
    """A call of a tool."""

    name: Cut
    arguments: Cut


class Turn(NamedTuple):
    """A message as it is shown.

    Attributes:
        remarks: what is to be known of it, such as how many tokens it has.
        thoughts: what was thought before the answer; None for none.
        fault: why it could not be taken apart; empty where it could.
        is_folded: whether it is shown only when asked for.
    """

    role: str
    name: str
    text: Cut
    remarks: tuple[str, ...] = ()
    thoughts: Cut | None = None
    calls: tuple[Call, ...] = ()
    fault: str = ""
    is_error: bool = False
    is_folded: bool = False


def cut(text: str, most: int) -> Cut:
    """Returns a text as far as there is room for it."""
    return Cut(text[:most], max(0, len(text) - most))


def prompt_turns(item: Mapping[str, Any], most: int) -> list[Turn]:
    """Returns the messages of a dataset row."""
    messages = item.get("messages")
    return list(_turns(messages if isinstance(messages, list) else [], most))


def completion_turns(rollout: Rollout, most: int) -> list[Turn]:
    """Returns what a completion is made of: its turns, or its thoughts and answer."""
    if rollout.episode:
        return list(_turns(rollout.episode["messages"], most))
    if rollout.message:
        return [_turn({**rollout.message, "content": _shown_text(rollout)}, most)]
    thoughts, answer = apart(rollout.text)
    return [Turn("assistant", "", cut(answer, most), thoughts=cut(thoughts, most) if thoughts else None)]


def apart(text: str) -> tuple[str, str]:
    """Returns the thoughts of a text, with their tags, and its answer, as graders tell them by default."""
    answer = answer_of(text)
    if answer is text or not text.endswith(answer):
        return "", text
    return text[: len(text) - len(answer)], answer


def answer_text(rollout: Rollout) -> str:
    """Returns what a completion says to its reader: the last answer of an episode, without thoughts."""
    if rollout.episode:
        turns = [one for one in rollout.episode["messages"] if one.get("role") == "assistant"]
        return _content(turns[-1].get("content")) if turns else ""
    return _shown_text(rollout) if rollout.message else apart(rollout.text)[1]


def _shown_text(rollout: Rollout) -> str:
    """Returns the answer of a message; all that was written where it could not be taken apart."""
    message = rollout.message or {}
    return rollout.text if message.get("unparsed") else _content(message.get("content"))


def _turns(messages: Sequence[Any], most: int) -> Iterator[Turn]:
    for message in messages[:MOST_TURNS]:
        if isinstance(message, Mapping):
            yield _turn(message, most)
    if (more := len(messages) - MOST_TURNS) > 0:
        yield Turn("", "", Cut(f"{more} more turns are not shown."))


def _turn(message: Mapping[str, Any], most: int) -> Turn:
    text = _content(message.get("content"))
    thoughts = message.get("reasoning_content")
    role = str(message.get("role", ""))
    return Turn(
        role,
        str(message.get("name") or ""),
        cut(text, most),
        tuple(_remarks(message)),
        cut(str(thoughts), most) if thoughts else None,
        tuple(_calls(message.get("tool_calls"), most)),
        str(message.get("unparsed") or ""),
        is_error=bool(message.get("is_error")),
        is_folded=role in ("system", "developer") and len(text) > SHORT,
    )


def _remarks(message: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(tokens := message.get("tokens"), int):
        yield f"{tokens:,} tokens"
    if isinstance(thought := message.get("reasoning_tokens"), int):
        yield f"{thought:,} of them thoughts" if tokens else f"{thought:,} tokens of thoughts"
    if isinstance(seconds := message.get("seconds"), int | float):
        yield f"{seconds:.2f} s"


def _calls(calls: object, most: int) -> Iterator[Call]:
    for call in calls[:MOST_CALLS] if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else as_json(arguments)
            yield Call(cut(str(function.get("name", "")), 200), cut(text, most))


def _content(content: object) -> str:
    """Returns the text of a message's content; of parts that are no text their JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [one["text"] if _is_text(one) else as_json(one) for one in content]
        return "\n".join(texts)
    return as_json(content)


def _is_text(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def as_json(value: object) -> str:
    """Returns a value as JSON, in one line."""
    return json.dumps(value, ensure_ascii=False)
