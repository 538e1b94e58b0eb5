"""What a chat template leaves out of a row, in words, and whether the row means another thing without it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import NamedTuple

from workers.training.rendering import marks
from workers.training.rendering.conversation import Conversation
from workers.training.rendering.marks import Lost
from workers.training.rendering.template import Template

_IN_A_PROMPT = {
    marks.SYSTEM: "the text of a system message",
    marks.USER: "the text of a user message",
    marks.ANSWER: "the text of an earlier answer",
    marks.RESULT: "the result of a tool call",
    marks.THOUGHT: "the thought of an earlier answer",
    marks.CALL: "an earlier tool call",
    marks.ARGUMENTS: "the arguments of an earlier tool call",
    marks.BESIDE_CALL: "the text beside an earlier tool call",
    marks.TOOLS: "the tools",
}
_IN_AN_ANSWER = {
    marks.ANSWER: "the text of the answer",
    marks.THOUGHT: "the thought of the answer",
    marks.CALL: "a tool call of the answer",
    marks.ARGUMENTS: "the arguments of a tool call of the answer",
    marks.BESIDE_CALL: "the text beside the tool calls of the answer",
}
_MILD = frozenset((marks.THOUGHT, marks.BESIDE_CALL))
"""What many templates drop on purpose once a conversation goes on: the model was trained without it."""
_TAG = re.compile(r"</?[a-z_:]+>", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


class Losses(NamedTuple):
    """Says what is left out, each thing once.

    Attributes:
        grave: pieces without which the row means something else.
        mild: pieces that models are used to be without.
    """

    grave: tuple[str, ...]
    mild: tuple[str, ...]


def losses(template: Template, talk: Conversation, learned: Collection[int] = ()) -> Losses:
    """Returns what the template leaves out of a conversation.

    `learned` are the places of earlier answers that are learned by themselves too, where they come last.
    """
    grave: dict[str, None] = {}
    mild: dict[str, None] = {}
    for piece in marks.lost(template, talk):
        is_answer = talk.ends_with_answer and piece.place == len(talk.messages) - 1
        is_mild = not is_answer and (piece.what in _MILD or piece.place in learned)
        (mild if is_mild else grave)[_word(piece, is_answer)] = None
    return Losses(tuple(grave), tuple(mild))


def unsaid(talk: Conversation, text: str) -> str | None:
    """Returns what of the answer that ends a conversation the text that is learned of it lacks, if any."""
    answer = talk.messages[-1]
    for words, said in (
        (_IN_AN_ANSWER[marks.THOUGHT], answer.get("reasoning_content") or ""),
        (_IN_AN_ANSWER[marks.ANSWER], answer["content"]),
    ):
        if said.strip() and not _says(text, said):
            return words
    return None


def _word(piece: Lost, is_answer: bool) -> str:
    return (_IN_AN_ANSWER if is_answer else _IN_A_PROMPT)[piece.what]


def _says(text: str, said: str) -> bool:
    """Whether a text holds another: in one piece, or the pieces between its tags one after the other.

    White space does not count, and text may be written as JSON has it.
    """
    text = _SPACE.sub("", text)
    if _place_behind(text, said, 0) is not None:
        return True
    place = 0
    for piece in _TAG.split(said):
        found = _place_behind(text, piece, place)
        if found is None:
            return False
        place = found
    return True


def _place_behind(text: str, said: str, start: int) -> int | None:
    """Returns the place in a text behind the first of the ways in which the other may be written."""
    ways = (said, json.dumps(said, ensure_ascii=False)[1:-1], json.dumps(said)[1:-1])
    for way in (_SPACE.sub("", way) for way in dict.fromkeys(ways)):
        found = text.find(way, start)
        if found >= 0:
            return found + len(way)
    return None
