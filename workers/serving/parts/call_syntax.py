"""How a chat template writes tool calls, found out by rendering calls of marks.

A call is a text with the function's name in it and behind that its arguments: as a JSON object (Hermes,
Qwen3, Llama, gpt-oss, DeepSeek), or in another way of the family's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workers.training.rendering.ends import ends_of
from workers.training.rendering.template import (
    ANSWER,
    ASKED,
    KEPT,
    KEY,
    TOOL,
    VALUE,
    Template,
    rendered_or_none,
    template_of,
)
from workers.training.rendering.vocabulary import special_tokens

NAMES = ("xCherryFirstx", "xCherrySecondx")
IDS = ("cherry000", "cherry001")
ARGUMENTS = {KEY: VALUE}
_USER = {"role": "user", "content": ASKED}


@dataclass(frozen=True)
class CallSyntax:
    """Says what stands around the names and the arguments of the calls of one turn.

    Attributes:
        lead: what stands before the first name.
        between_parts: what stands between a name and its arguments, if these are a JSON object; None where
            they are written in another way.
        between_calls: what stands between the arguments of a call and the name of the next; None where a
            turn has one call.
        tail: what stands behind the last arguments, without what ends the turn.
        name_end: the character that stands behind a name.
    """

    lead: str
    between_parts: str | None
    between_calls: str | None
    tail: str
    name_end: str


def call_syntax(tokenizer: Any) -> CallSyntax | None:
    """Returns how a tokenizer's chat template writes calls; None where it writes none."""
    try:
        return _found(template_of(tokenizer, [TOOL]))
    except ValueError:  # it has no template
        return None


@lru_cache(maxsize=KEPT)
def _found(template: Template) -> CallSyntax | None:
    one = _turn(template, NAMES[:1])
    if one is None:
        return None
    two = _turn(template, NAMES)
    places = _places(two, NAMES) if two is not None else None
    if two is None or places is None:
        return _of_one(one)
    (first, first_arguments), (second, second_arguments) = places
    between = two[first_arguments[1] : second]
    tail = two[second_arguments[1] :]
    if _has_id(between) or _has_id(tail):
        return None
    parts = two[first + len(NAMES[0]) : first_arguments[0]]
    return CallSyntax(two[:first], parts, between, tail, parts[:1])


def _of_one(text: str) -> CallSyntax | None:
    """Returns the syntax by the text of a turn with one call."""
    name = text.index(NAMES[0])
    lead, rest = text[:name], text[name + len(NAMES[0]) :]
    places = _places(text, NAMES[:1])
    if places is None:
        return CallSyntax(lead, None, None, "", rest[:1])
    ((_, arguments),) = places
    tail = text[arguments[1] :]
    if _has_id(tail):
        return None
    return CallSyntax(lead, text[name + len(NAMES[0]) : arguments[0]], None, tail, rest[:1])


def _turn(template: Template, names: Sequence[str]) -> str | None:
    """Returns what a model writes in a turn of calls of these functions, up to what ends the turn."""
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": ARGUMENTS}}
        for name, call_id in zip(names, IDS, strict=False)
    ]
    talk = template.trial(_USER, {"role": "assistant", "content": "", "tool_calls": calls})
    text = rendered_or_none(template, talk) or ""
    if any(text.count(name) != 1 for name in names):
        return None
    written = text[_beginning(template, text, names[0]) :]
    ends = [
        token for token, number in special_tokens(template.tokenizer).items() if number in _ends(template)
    ]
    places = [place for end in ends if (place := written.find(end, written.rindex(names[-1]))) >= 0]
    return written[: min(places, default=len(written))].rstrip()


def _beginning(template: Template, text: str, name: str) -> int:
    """Returns where the call begins: where a turn with an answer says another thing than one with a call."""
    prompt = rendered_or_none(template, template.trial(_USER)) or ""
    answered = (
        rendered_or_none(template, template.trial(_USER, {"role": "assistant", "content": ANSWER})) or ""
    )
    start = len(prompt) if text.startswith(prompt) else 0
    if answered.startswith(text[:start]):
        lead = answered[start : answered.find(ANSWER)]  # what stands before every answer, such as no thoughts
        start += len(lead) if text.startswith(lead, start) else 0
    place = text.index(name)
    start = min(start, place)
    return start + len(text[start:place]) - len(text[start:place].lstrip())


def _ends(template: Template) -> set[int]:
    return ends_of(template).ids | {template.tokenizer.eos_token_id}


_Place = tuple[int, tuple[int, int]]


def _places(text: str, names: Sequence[str]) -> list[_Place] | None:
    """Returns where each name begins, and its arguments as a JSON object begin and end."""
    found: list[_Place] = []
    for name in names:
        start = text.find(name)
        if start < 0 or (found and start < found[-1][1][1]):
            return None
        arguments = _arguments(text, start + len(name))
        if arguments is None:
            return None
        found.append((start, arguments))
    return found


def _arguments(text: str, start: int) -> tuple[int, int] | None:
    decoder = json.JSONDecoder()
    place = text.find("{", start)
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except ValueError:
            value, end = None, place
        if value == ARGUMENTS:
            return place, end
        place = text.find("{", place + 1)
    return None


def _has_id(text: str) -> bool:
    """Whether a text holds an id of a call, which the model would have to make up."""
    return any(call_id in text for call_id in IDS)
