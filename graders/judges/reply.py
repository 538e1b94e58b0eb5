"""Reads strictly what a judge replied: one JSON object and nothing else.

JSON is never searched for in other text: a judge that quotes the answer it judges would hand that answer's
own "result" over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from graders import strict_json
from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed, Usage

MAX_REASON = 2000
SHOWN = 200

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""Servers that do not take a reasoning model's thoughts apart send them first."""
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)

STEPS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}


def reply_schema(key: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON schema of a reply: steps, then `key`, so that the judge reasons before it decides."""
    return {
        "type": "object",
        "properties": {"steps": STEPS_SCHEMA, key: of},
        "required": ["steps", key],
        "additionalProperties": False,
    }


def read_reply(text: str, usage: Usage) -> dict[str, Any]:
    """Returns the object that a reply holds, out of one code fence and after thoughts too.

    Raises `GradeFailed` (model_grader_parse_error).
    """
    body = without_thoughts(text)
    if fenced := _FENCED.match(body):
        body = fenced[1].strip()
    try:
        content = strict_json.loads(body)
    except StrictJsonError as error:
        raise misread(f"is not JSON ({error})", text, usage) from None
    if not isinstance(content, dict):
        raise misread("is not a JSON object", text, usage)
    return content


def without_thoughts(text: str) -> str:
    """Returns a reply without the thoughts that it begins with, and without blanks around it."""
    return _THOUGHTS.sub("", text, count=1).strip()


def misread(what: str, text: str, usage: Usage) -> GradeFailed:
    """Returns the failure for a reply that cannot be read.

    `what` goes on the sentence "The judge's reply ...".
    """
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return GradeFailed(FailureKind.MODEL_PARSE, f"The judge's reply {what}: {shown!r}", usage=usage)


def number(value: Any) -> float | None:
    """Returns a finite number as a float, else None; booleans, and text that looks like one, are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def reason_of(content: Mapping[str, Any], remark: str = "") -> str:
    """Returns the steps of a reply as text, with what is to be known of how it came about."""
    steps = content.get("steps")
    told = [_step(step) for step in steps] if isinstance(steps, list) else []
    text = " ".join(filter(None, told))[:MAX_REASON]
    return f"{text} [{remark}]".strip() if remark else text


def _step(step: Any) -> str:
    if not isinstance(step, dict):
        return ""
    said = [step.get(key) for key in ("description", "conclusion")]
    return ": ".join(text.strip() for text in said if isinstance(text, str) and text.strip())
