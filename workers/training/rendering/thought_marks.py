"""What a chat template writes around the thoughts of an answer, found out by trying."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from graders.thoughts import FAMILIES
from workers.training.rendering.template import (
    ANSWER,
    ASKED,
    KEPT,
    Template,
    rendered_or_none,
    template_of,
)

Start = Literal["before", "thoughts", "answer"]
"""Where a completion starts: before any thoughts, within those that its prompt opened, or behind those that
its prompt closed too.
"""
PROMPT_TAIL = 64
"""Tokens at the end of a prompt among which it may open thoughts. Measured: the longest generation prompt of
the 41 templates of trl 1.16 has 30, in a tokenizer of bytes.
"""
_THOUGHT = "xCherryThoughtx"
_USER = {"role": "user", "content": ASKED}
_ANSWERED = {"role": "assistant", "content": ANSWER}
_THINKING = {**_ANSWERED, "reasoning_content": _THOUGHT}
_LAST_TAG = re.compile(r"(?:<[^<>\s]+>|\[[^\[\]\s]+\])$")


@dataclass(frozen=True)
class ThoughtMarks:
    """Says how thoughts begin and end in what a model writes.

    Attributes:
        opening: what opens them, such as "<think>".
        closing: what closes them, such as "</think>".
        lead: white space that the template writes before the opening.
        ending: all that the template writes between thoughts and answer.
        header: what has to stand before an answer, with thoughts or without, where that is more than white
            space: gpt-oss writes the name of a channel.
        gap: white space that the template writes before an answer which follows thoughts.
        is_shown: the template itself writes thoughts, so that the model has learnt to.
    """

    opening: str
    closing: str
    lead: str = ""
    ending: str = ""
    header: str = ""
    gap: str = ""
    is_shown: bool = True

    @property
    def bridge(self) -> str:
        """Returns what the template writes between closed thoughts and the text of an answer."""
        return self.ending.strip().removeprefix(self.closing).strip()

    @property
    def restart(self) -> str:
        """Returns what of that stands before the header: gpt-oss begins a message of its own."""
        return self.bridge.removesuffix(self.header).strip()

    def start(self, prompt_end: str) -> Start:
        """Returns where a completion starts, by the end of its prompt."""
        end = prompt_end.rstrip()
        if end.endswith(self.opening):
            return "thoughts"
        return "answer" if end.endswith(self.closing) and not self.header else "before"


def opening_tag(text: str) -> str:
    """Returns the tag that a text begins with, if it opens thoughts which are closed further on; else ""."""
    lower = text.lstrip().lower()
    return next((opened for opened, closed in FAMILIES if _is_between(lower, opened, closed)), "")


def _is_between(lower: str, opened: str, closed: str) -> bool:
    return lower.startswith(opened.lower()) and closed.lower() in lower


def marks_of(tokenizer: Any) -> ThoughtMarks | None:
    """Returns the marks of a tokenizer's chat template; None where it shows no thoughts and opens none."""
    try:
        return _marks_of(template_of(tokenizer, None))
    except ValueError:  # it has no template
        return None


@lru_cache(maxsize=KEPT)
def _marks_of(template: Template) -> ThoughtMarks | None:
    return _shown(template) or _opened_by_prompt(template)


def _shown(template: Template) -> ThoughtMarks | None:
    """Returns what stands around a thought that the template has written before an answer."""
    prompt, thinking = _rendered(template, _USER), _rendered(template, _USER, _THINKING)
    before, thought, rest = thinking.partition(_THOUGHT)
    ending, answer, _ = rest.partition(ANSWER)
    if not (thought and answer):
        return None
    opening = before.removeprefix(prompt) if before.startswith(prompt) else ""
    opened = opening.strip() or _last_tag(before)
    header = _header(template, prompt, opened)
    closing = ending.removesuffix(header).strip()
    if header:
        closing = closing.removesuffix(_generation_prompt(template, prompt).strip()).strip()
    if not (opened and closing):
        return None
    return ThoughtMarks(
        opened,
        closing,
        lead=opening[: len(opening) - len(opening.lstrip())],
        ending=ending,
        header=header.strip(),
        gap=ending[len(ending.rstrip()) :],
    )


def _header(template: Template, prompt: str, opened: str) -> str:
    """Returns what an answer without thoughts begins with, but for white space and empty thoughts."""
    plain, answer, _ = _rendered(template, _USER, _ANSWERED).partition(ANSWER)
    header = plain.removeprefix(prompt)
    is_one = bool(answer) and plain.startswith(prompt) and header.strip() and opened not in header
    return header if is_one else ""


def _generation_prompt(template: Template, prompt: str) -> str:
    talk = template.trial(_USER)
    try:
        return prompt.removeprefix(template.write(talk, is_open=False))
    except Exception:  # a template is a program of its own and may refuse this conversation in any way
        return ""


def _opened_by_prompt(template: Template) -> ThoughtMarks | None:
    """Returns the marks of thoughts that a generation prompt opens, of a template that never shows any."""
    prompt = _rendered(template, _USER)
    for opening, closing in FAMILIES:
        if prompt.rstrip().endswith(opening):
            return ThoughtMarks(opening, closing, ending=f"\n{closing}\n\n", gap="\n\n")
    return None


def _rendered(template: Template, *messages: dict[str, Any]) -> str:
    return rendered_or_none(template, template.trial(*messages)) or ""


def _last_tag(text: str) -> str:
    found = _LAST_TAG.search(text.rstrip())
    return found[0] if found else ""
