"""The grammar of an answer that may call tools, or must: for llguidance, in its dialect of Lark.

It begins behind the thoughts. A call is written as the model's chat template writes one, to the character.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from methods.response_format import held_schema
from workers.serving.parts.call_syntax import CallSyntax

ANY = "<[*]>*"
"""Tokens of any kind, to the end."""
BLANK = "BLANK: /[ \\n]{0,4}/"
"""White space that may stand before a call."""
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class Calling(NamedTuple):
    """Says how the tools of a request may be called.

    Attributes:
        tools: in the form of chats, those alone that may be called.
        is_forced: the answer has to be calls.
        is_single: there may be one call.
    """

    tools: tuple[Mapping[str, Any], ...]
    is_forced: bool
    is_single: bool

    @property
    def has_strict(self) -> bool:
        """Whether the arguments of a tool have to be of its schema."""
        return any(tool["function"].get("strict") for tool in self.tools)


def grammar_of_calls(
    calling: Calling, syntax: CallSyntax, tag: str, tokenizer: Any, schema: Mapping[str, Any] | None
) -> str:
    """Returns the grammar. `tag` is what calls begin with, if anything; an answer that is none is of `schema`
    where that is given."""
    write = _Writer(tokenizer)
    calls = _calls(calling, syntax, write)
    rules = [BLANK, *write.rules]
    if calling.is_forced:
        start = f"BLANK {write.literal(syntax.lead)} {calls}"
    elif schema is not None:
        rules.append(f"answer: %json {json.dumps(schema)}")
        start = f"(BLANK {write.literal(syntax.lead)} {calls}) | answer"
    else:
        start = _behind_text(syntax.lead, tag, calls, write, rules)
    return "\n".join([f"start: {start}", *rules, ""])


def _behind_text(lead: str, tag: str, calls: str, write: _Writer, rules: list[str]) -> str:
    """Returns the start of an answer that is a text, calls, or a text and calls."""
    _, found, rest = lead.partition(tag) if tag else ("", "", "")
    if not found:  # a text that begins as calls do is one
        first = json.dumps(lead.strip()[:1])[1:-1].replace("]", "\\]").replace("^", "\\^")
        rules.append(f"TEXT: /[ \\n]*([^ \\n{first}](.|\\n)*)?/")
        return f"(BLANK {write.literal(lead)} {calls}) | TEXT"
    behind = f"{write.literal(rest)} {calls}" if rest else calls
    if write.is_atom(tag):
        rules.append("TEXT: /(.|\\n)+/")
        return f"TEXT? ({write.literal(tag)} {behind})?"
    pattern = "".join(_escaped(character) for character in tag)
    rules.append(f"TEXT: /(.|\\n)*/ & ~/(.|\\n)*{pattern}(.|\\n)*/")
    rules.append(f"tagged[lazy]: /(.|\\n)*{pattern}/")
    return f"(tagged {behind}) | TEXT"


def _calls(calling: Calling, syntax: CallSyntax, write: _Writer) -> str:
    """Returns what stands behind the lead of the first call; adds the rules that it needs."""
    names = [tool["function"]["name"] for tool in calling.tools]
    if syntax.between_parts is None:
        choice = " | ".join(write.literal(name + syntax.name_end) for name in names)
        return f"({choice}) {ANY}"
    choices = []
    for number, tool in enumerate(calling.tools):
        function = tool["function"]
        write.rules.append(f"arguments_{number}: %json {json.dumps(_held(function))}")
        between = write.literal(function["name"] + syntax.between_parts)
        choices.append(f"{between} arguments_{number}")
    write.rules.append(f"call: {' | '.join(f'({choice})' for choice in choices)}")
    more = ""
    if syntax.between_calls is not None and not calling.is_single:
        more = f"({write.literal(syntax.between_calls)} call)*"
    return f"call {more} {write.literal(syntax.tail)}"


def _held(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the schema of a function's arguments: its own if it is strict, else that of any object."""
    if not function.get("strict"):
        return held_schema({"type": "object"})
    return held_schema(function.get("parameters") or NO_PARAMETERS)


class _Writer:
    """Writes texts of a template as a grammar has them."""

    def __init__(self, tokenizer: Any) -> None:
        self.rules: list[str] = []
        self._atoms = {
            text: number
            for text, number in tokenizer.get_added_vocab().items()
            if text in tokenizer.all_special_tokens or (text[:1] == "<" and text[-1:] == ">")
        }

    def is_atom(self, text: str) -> bool:
        """Whether a text is one token that no rule for text matches."""
        return text in self._atoms

    def literal(self, text: str) -> str:
        """Returns what matches this text alone."""
        parts: list[str] = []
        plain, place = "", 0
        while place < len(text):
            atom = max((one for one in self._atoms if text.startswith(one, place)), key=len, default="")
            if atom:
                parts += [json.dumps(plain, ensure_ascii=False)] if plain else []
                parts.append(f"<[{self._atoms[atom]}]>")
                plain, place = "", place + len(atom)
            else:
                plain, place = plain + text[place], place + 1
        parts += [json.dumps(plain, ensure_ascii=False)] if plain else []
        return " ".join(parts) or '""'


def _escaped(character: str) -> str:
    """Returns a character as a regular expression between slashes has it."""
    return character if character.isalnum() or character in "_<> " else f"\\{character}"
