"""Which response template reads what a chat template writes: the tokenizer's own, or one that trl brings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from workers.training.rendering.response import Response, ResponseReader, Unparsed
from workers.training.rendering.template import (
    ANSWER,
    ASKED,
    CALL_ID,
    KEPT,
    KEY,
    NAME,
    TOOL,
    VALUE,
    Template,
    rendered_or_none,
    template_of,
)
from workers.training.rendering.thought_marks import ThoughtMarks, marks_of

_OF_TOOLS = "tool"
"""What stands in every chat template that trl has a response template for: they all show tools."""
_USER = {"role": "user", "content": ASKED}
_TAG = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")
_BLANK = re.compile(r"(?:\\s[*+]|\|\$)+$")
_PLAIN = re.compile(r"(?:\\\W|[^\\.^$*+?{}\[\]|()])+")


def response_template_of(tokenizer: Any) -> Mapping[str, Any] | None:
    """Returns the response template of a tokenizer; None where none is known to read its chat template."""
    own = getattr(tokenizer, "response_template", None)
    return own or _known(template_of(tokenizer, [TOOL]))


def call_tag_of(tokenizer: Any) -> str:
    """Returns the tag that tool calls begin with; "" where they begin with none, or cannot be written."""
    return _call_tag(template_of(tokenizer, [TOOL]))


def marks_in(field: Mapping[str, Any]) -> ThoughtMarks | None:
    """Returns the marks of thoughts by their field in a response template, where these are plain texts."""
    closing = field.get("close") or _plain(field.get("close_pattern", ""))
    opening = field.get("open") or _plain(field.get("open_pattern", ""))
    if not (isinstance(opening, str) and isinstance(closing, str) and opening and closing):
        return None
    opening, closing = opening.strip(), closing.strip()
    return ThoughtMarks(opening, closing, ending=f"\n{closing}\n", gap="\n", is_shown=False)


def _plain(pattern: str) -> str:
    """Returns the only text that a pattern means but for white space at its end; "" of any other pattern."""
    pattern = _BLANK.sub("", pattern)
    return re.sub(r"\\(\W)", r"\1", pattern) if _PLAIN.fullmatch(pattern) else ""


@lru_cache(maxsize=KEPT)
def _known(template: Template) -> Mapping[str, Any] | None:
    """Returns trl's response template for this chat template, or another of trl's that reads its calls."""
    if _OF_TOOLS not in template.text:
        return None
    from trl import chat_template_utils as trl_templates  # a second: it loads what reads data sets

    known: Any = SimpleNamespace(chat_template=template.text)
    try:
        found: Mapping[str, Any] = trl_templates.add_response_schema(known).response_template
    except ValueError:  # trl does not know this text
        return next(filter(lambda each: _reads(each, template), _all()), None)
    return found


def _all() -> Iterator[Mapping[str, Any]]:
    """Yields the response templates that trl has."""
    from trl import chat_template_utils as trl_templates

    for name, value in vars(trl_templates).items():
        if name.endswith("_template") and isinstance(value, dict) and "fields" in value:
            yield value


def _reads(response: Mapping[str, Any], template: Template) -> bool:
    """Whether a response template gives back the call and the answer that the chat template has written."""
    called, answered = _written(template, _calling()), _written(template, _answering())
    if called is None or answered is None or not (tag := _call_tag(template)):
        return False
    try:
        reader = ResponseReader(response, tag)
        call, answer = reader.read(called, [TOOL]), reader.read(answered, [TOOL])
    except Unparsed:
        return False
    calls = [(each.name, dict(each.arguments)) for each in call.calls]
    return calls == [(NAME, {KEY: VALUE})] and _is_answer(answer)


def _is_answer(found: Response) -> bool:
    texts = [text.strip() for text in found.of(*found.texts)]
    return not found.calls and len(texts) == 1 and texts[0].startswith(ANSWER)


def _written(template: Template, message: dict[str, Any]) -> str | None:
    """Returns what a model has to write for a message, without thoughts; None where that is not told."""
    prompt = rendered_or_none(template, template.trial(_USER))
    text = rendered_or_none(template, template.trial(_USER, message))
    if prompt is None or text is None:
        return None
    marks = marks_of(template.tokenizer)
    if marks is not None and marks.closing in text[text.rindex(ASKED) :]:
        return text[text.rindex(marks.closing) + len(marks.closing) :]
    return text.removeprefix(prompt) if text.startswith(prompt) else None


def _calling() -> dict[str, Any]:
    call = {"id": CALL_ID, "type": "function", "function": {"name": NAME, "arguments": {KEY: VALUE}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _answering() -> dict[str, Any]:
    return {"role": "assistant", "content": ANSWER}


@lru_cache(maxsize=KEPT)
def _call_tag(template: Template) -> str:
    """Returns the first tag that a turn with a call has, and a turn with an answer has not."""
    called = _written(template, _calling()) or ""
    before, name, _ = called.partition(NAME)
    answered = _written(template, _answering()) or ""
    tags = [tag for tag in _TAG.findall(before) if tag not in answered] if name else []
    return str(tags[0]) if tags else ""
