"""What a model's chat templates cannot show at all, whatever the row: tried when the model is added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from methods.template_gaps import (
    ANSWERS,
    BESIDE_CALLS,
    EARLIER_THOUGHTS,
    RESULTS,
    SEVERAL_CALLS,
    SYSTEM_MESSAGES,
    THOUGHTS,
    TOOL_CALLS,
    TOOLS,
)
from workers.training.rendering import marks
from workers.training.rendering.template import TOOL, Template, rendered_or_none, template_of

_USER = {"role": "user", "content": "x"}
_ANSWER = {"role": "assistant", "content": "x"}
_THINKING = {**_ANSWER, "reasoning_content": "x"}


def cannot_show(tokenizer: Any) -> list[str]:
    """Returns what a tokenizer's chat templates refuse or leave out, named as in methods/template_gaps.py.

    What follows from another gap is not named again: without tool calls there are no results of them.
    """
    return list(_gaps(tokenizer))


def _gaps(tokenizer: Any) -> Iterator[str]:
    plain, with_tools = template_of(tokenizer, None), template_of(tokenizer, [TOOL])
    if _hides(plain, marks.SYSTEM, {"role": "system", "content": "x"}, _USER):
        yield SYSTEM_MESSAGES
    if _hides(plain, marks.ANSWER, _USER, _ANSWER, _USER):
        yield ANSWERS
    if _hides(plain, marks.THOUGHT, _USER, _THINKING):
        yield THOUGHTS
    elif _hides(plain, marks.THOUGHT, _USER, _THINKING, _USER):
        yield EARLIER_THOUGHTS
    if _hides(with_tools, marks.TOOLS, _USER):
        yield TOOLS
    if _hides(with_tools, marks.CALL, _USER, _calling(1)) or _hides(
        with_tools, marks.ARGUMENTS, _USER, _calling(1)
    ):
        yield TOOL_CALLS
        return
    if _hides(with_tools, marks.CALL, _USER, _calling(2)):
        yield SEVERAL_CALLS
    if _hides(with_tools, marks.BESIDE_CALL, _USER, _calling(1, "x")):
        yield BESIDE_CALLS
    if _hides(with_tools, marks.RESULT, _USER, _calling(1), _result()):
        yield RESULTS


def _calling(number: int, text: str = "") -> dict[str, Any]:
    calls = [
        {"id": f"cherry{i:03}", "function": {"name": "x", "arguments": {"x": "x"}}} for i in range(number)
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _result() -> dict[str, Any]:
    return {"role": "tool", "content": "x", "tool_call_id": "cherry000", "name": "x"}


def _hides(template: Template, what: str, *messages: dict[str, Any]) -> bool:
    """Whether a template refuses this conversation, or leaves a piece of this kind out of it."""
    talk = template.trial(*messages)
    if rendered_or_none(template, talk) is None:
        return True
    return any(piece.what == what for piece in marks.lost(template, talk))
