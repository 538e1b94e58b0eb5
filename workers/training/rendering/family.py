"""Which family a chat template is of, and whether its thoughts and its tool calls are understood."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from trl import chat_template_utils as trl_templates

from workers.training.rendering.parts import reader_of
from workers.training.rendering.template import template_of
from workers.training.rendering.thinking import thinking_of

_SUFFIX = "_chat_template"
_MEND = (
    "To mend it, give the tokenizer a `response_template` (in tokenizer_config.json; transformers has it"
    ' under "Chat response parsing"), or add the model with a template that is known (--template).'
)


class Family(NamedTuple):
    """Says what is understood of a chat template.

    Attributes:
        template: its name among the templates that trl brings; None for another text.
        thoughts: how thoughts are told, in words.
        calls: whether tool calls are.
        mend: what to do where one of the two is not, "" where both are.
    """

    template: str | None
    thoughts: str
    calls: str
    mend: str


def family_of(tokenizer: Any) -> Family:
    """Returns what is understood of a tokenizer's chat template."""
    reader = reader_of(tokenizer)
    text = template_of(tokenizer, None).text
    name = _names().get(text)
    marks = None if reader is None else reader.marks
    if marks is None:
        thoughts = "none by its template; graders tell them by tags (to teach it some: docs/thinking.md)"
    elif not thinking_of(tokenizer).thinks:
        thoughts = f"between {marks.opening} and {marks.closing}, off unless a job asks for them"
    else:
        thoughts = f"between {marks.opening} and {marks.closing}"
    calls_tools = reader is not None and reader.calls_tools
    calls = "understood" if calls_tools else "not understood: no jobs with tools"
    return Family(name, thoughts, calls, "" if calls_tools else _MEND)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Returns the names of trl's chat templates by their text."""
    return {
        text: name.removesuffix(_SUFFIX)
        for name, text in vars(trl_templates).items()
        if name.endswith(_SUFFIX) and isinstance(text, str)
    }
