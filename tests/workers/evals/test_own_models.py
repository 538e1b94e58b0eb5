"""Models of this service that answer rows: what they are asked, and what graders see of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal

from app.evals.answerers import Answerer
from app.inference.reply import Call, Choice, Usage
from graders.services import Target
from tests.app.grading.judge_servers import settings_with
from workers.evals.asking import OwnModel, model_of
from workers.evals.faults import RunInvalid

NOBODY = cast(BlockingPortal, None)
"""Is not asked for anything here."""
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


class Calling(OwnModel):
    """Answers each row with a call that it thought about."""

    def _once(self, body: Mapping[str, Any]) -> tuple[Choice, Usage]:
        self.asked = body
        return Choice("", [], "tool_calls", "I call f.", (Call("call_1", "f", "{}"),)), Usage(1, 2)


def test_graders_see_thoughts_and_calls_of_a_model_here() -> None:
    sampling = {"tools": [{"type": "function", "function": FUNCTION}], "reasoning_effort": "low"}
    model = Calling("m", "run", "proj", sampling, settings_with(), NOBODY)
    sample = model.answer([{"role": "user", "content": "hi"}]).sample
    assert (sample.output_text, sample.output_thoughts, sample.finish_reason) == (
        "",
        "I call f.",
        "tool_calls",
    )
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert list(sample.output_tools) == [call]
    assert model.asked["tools"] == [{"type": "function", "function": FUNCTION}]
    assert model.asked["reasoning_effort"] == "low"


def test_tools_that_a_chat_would_refuse_fail_the_run() -> None:
    answerer = Answerer("own", "m", Target("m", None, None))
    tools = [{"type": "function", "function": {"name": "a b"}}]
    with pytest.raises(RunInvalid, match="letters, digits"):
        model_of(answerer, "run", "proj", {"tools": tools}, settings_with(), NOBODY)
