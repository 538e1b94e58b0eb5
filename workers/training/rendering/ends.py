"""By which token a chat template ends what the assistant has written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from workers.training.rendering.conversation import Conversation
from workers.training.rendering.template import ANSWER, ASKED, TOOL, Template, rendered_or_none, template_of
from workers.training.rendering.vocabulary import special_tokens

FIRST, SECOND = "xCherryFirstx", "xCherrySecondx"
_USER = {"role": "user", "content": ASKED}


class Ends(NamedTuple):
    """Holds the ids of the special tokens that follow an answer, and a turn of tool calls; None for none.

    Where nothing ends them they are those that begin the next turn.
    """

    after_answer: int | None
    after_calls: int | None

    @property
    def ids(self) -> set[int]:
        """Returns what there is of both."""
        return {token for token in self if token is not None}


def template_end_ids(tokenizer: Any) -> set[int]:
    """Returns the ids by which the tokenizer's chat templates end what the assistant has written."""
    found: set[int] = set()
    for tools in (None, [TOOL]):
        try:
            template = template_of(tokenizer, tools)
        except ValueError:  # it has templates by other names alone
            continue
        found |= ends_of(template).ids
    return found


def ends_of(template: Template) -> Ends:
    """Finds out what a template writes behind marks of an answer, and of tool calls."""
    special = special_tokens(template.tokenizer)
    return Ends(_after_answer(template, special), _after_calls(template, special))


def _after_answer(template: Template, special: dict[str, int]) -> int | None:
    answered = (_USER, {"role": "assistant", "content": ANSWER})
    for messages in (answered, (*answered, _USER)):
        text = rendered_or_none(template, template.trial(*messages)) or ""
        _, mark, rest = text.rpartition(ANSWER)
        if mark and (found := _first(rest, special)) is not None:
            return found
    return None


def _after_calls(template: Template, special: dict[str, int]) -> int | None:
    names: tuple[str, ...] = (FIRST, SECOND)
    text = rendered_or_none(template, _calling(template, names)) or ""
    if SECOND not in text:  # it writes one call a turn
        names = (FIRST,)
        text = rendered_or_none(template, _calling(template, names)) or ""
    _, mark, rest = text.partition(FIRST)
    if not mark:
        return None
    # what comes once for two calls ends the turn, not each call
    ends = [token for token in special if rest.rstrip().endswith(token) and rest.count(token) == 1]
    if ends:
        return special[max(ends, key=len)]
    going_on = rendered_or_none(template, _calling(template, names, with_results=True)) or ""
    return _first(going_on[len(text.rstrip()) :], special) if going_on.startswith(text.rstrip()) else None


def _calling(template: Template, names: Sequence[str], *, with_results: bool = False) -> Conversation:
    ids = [f"cherry{number:03}" for number in range(len(names))]
    calls = [
        {"id": i, "type": "function", "function": {"name": name, "arguments": {"x": "x"}}}
        for i, name in zip(ids, names, strict=True)
    ]
    results = [
        {"role": "tool", "content": "x", "tool_call_id": i, "name": name}
        for i, name in zip(ids, names, strict=True)
    ]
    calling = {"role": "assistant", "content": "", "tool_calls": calls}
    return template.trial(_USER, calling, *(results if with_results else ()))


def _first(text: str, special: dict[str, int]) -> int | None:
    """Returns the special token that a text begins with, behind white space."""
    starts = [token for token in special if text.strip().startswith(token)]
    return special[max(starts, key=len)] if starts else None
