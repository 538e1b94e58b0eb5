"""Tells a completion's answer from the thoughts that stand before it in the same text.

By text, since graders see text; one function for every kind of grader. docs/graders.md lists `FAMILIES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Thoughts = Literal["auto", "none"] | Sequence[str]
"""Which tags hold thoughts: those of `FAMILIES`, none, or a pair (what opens them, what closes them)."""

_NAMES = (
    "think", "thinking", "thought", "thoughts", "reasoning", "think_fast", "think_faster",
    "seed:think", "mm:think", "longcat_think",
)  # fmt: skip
FAMILIES: Sequence[tuple[str, str]] = (
    *((f"<{name}>", f"</{name}>") for name in _NAMES),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>", "<channel|>"),
    ("<unused94>", "<unused95>"),
    ("[unused16]", "[unused17]"),
    ("<|channel|>analysis", "<|channel|>final"),
    ("<|channel|>commentary", "<|channel|>final"),
    ("to=self<|message|>", "<|eom|>"),
)
"""What opens a thought and what closes it, by family of models; case does not matter."""

WRAPPERS: Sequence[tuple[str, str]] = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<response>", "</response>"),
)
"""What some families write around the answer that follows their thoughts."""


class _Mark(NamedTuple):
    """Marks where a thought begins or ends: which pair it belongs to, and where it ends in the text."""

    opens: bool
    closed_by: str
    end: int


_OPENING = {opened.lower(): closed.lower() for opened, closed in FAMILIES}
_CLOSING = frozenset(_OPENING.values())
_TAG = re.compile(r"[<\[◁][^<>\[\]◁▷\s]{1,24}[ \t]?[>\]▷](?:(?<=<\|channel\|>)[a-z]+)?")
_TO_SELF = "to=self"
_HEADER = re.compile(r"(?:<\|start\|>assistant)?[^<>\n]{0,80}(?:<\|constrain\|>\w+)?<\|message\|>")
"""What stands between the thoughts of a channel and its answer."""
_CHANNEL_ENDS = ("<|return|>", "<|end|>", "<|eot|>")
_BLANK = re.compile(r"\s*\n|[^\S\n]+")
"""White space behind a closing tag, but for the indentation of a line that follows."""
_BARE = re.compile(r"\s*(?:assistant)?analysis")
_BARE_END = "assistantfinal"
"""gpt-oss without its special tokens."""


def answer_of(text: str, thoughts: Thoughts = "auto") -> str:
    """Returns a completion's text without its thoughts; one that holds no thoughts is returned as it is.

    The answer is what follows the last thought. A closing tag alone closes a thought that the prompt opened.
    A thought that is never closed leaves no answer: "".
    """
    if thoughts == "auto":
        if _BARE_END in text and _BARE.match(text):
            return text.rpartition(_BARE_END)[2]
        # what tags begin with: nearly every answer has none, and graders are called often
        may_hold = "<" in text or "[" in text or "◁" in text
        return _after(text, _marks(text)) if may_hold else text
    if thoughts == "none":
        return text
    return _after(text, _marks_of(text, *thoughts))


def _marks(text: str) -> Iterator[_Mark]:
    for found in _TAG.finditer(text):
        tag = found[0].lower().replace(" ", "").replace("\t", "")
        if tag == "<|message|>" and text.endswith(_TO_SELF, 0, found.start()):
            tag = _TO_SELF + tag
        if tag in _OPENING:
            yield _Mark(True, _OPENING[tag], found.end())
        elif tag in _CLOSING:
            yield _Mark(False, tag, found.end())


def _marks_of(text: str, opened: str, closed: str) -> Iterator[_Mark]:
    longest_first = sorted((opened, closed), key=len, reverse=True)
    for found in re.finditer("|".join(map(re.escape, longest_first)), text):
        yield _Mark(found[0] == opened, closed, found.end())


def _after(text: str, marks: Iterator[_Mark]) -> str:
    """Returns what follows the last thought; all of the text if there is none."""
    start, closing, waits_for = 0, "", ""
    for mark in marks:
        if mark.opens:
            waits_for = waits_for or mark.closed_by
        elif waits_for in ("", mark.closed_by):
            start, closing, waits_for = mark.end, mark.closed_by, ""
    if waits_for:
        return ""
    return _tidied(text[start:], closing) if closing else text


def _tidied(answer: str, closing: str) -> str:
    """Returns an answer without the white space behind the thoughts and what its family wraps it in."""
    if closing in ("<|channel|>final", "<|eom|>"):
        answer = answer[header.end() :] if (header := _HEADER.match(answer)) else answer
        for end in _CHANNEL_ENDS:
            answer = answer.removesuffix(end)
    answer = answer[blank.end() :] if (blank := _BLANK.match(answer)) else answer
    for opened, closed in WRAPPERS:
        if answer.startswith(opened):
            return answer.removeprefix(opened).rstrip().removesuffix(closed).strip()
    return answer
