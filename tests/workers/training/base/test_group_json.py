"""Graded groups survive being written as JSON."""

from __future__ import annotations

import json

from graders import Grade
from workers.training.base.group_json import group_from_json, group_to_json
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult, Turn
from workers.training.base.types import Completion, Group, Prompt


def test_given_tokens_and_parts_come_back_as_they_were():
    prompt = Prompt(0, {}, (1, 2))
    parts = Parts("hm", "4", (ToolCall("add", {"a": 1, "b": [2.5, None]}),), thought_tokens=3)
    result = CallResult("call_1", parts.calls[0], "é", 0.5, is_error=True, tokens=1)
    turns = (Turn(parts, 2, (result,), ({"role": "user", "content": "more"},)),)
    completions = (
        Completion((3, 4), (-0.5, 0.0), "x", "stop", given=(False, True), parts=parts),
        Completion((5,), (-0.25,), "y", "length"),
        Completion((5,), (-0.25,), "y", "stop", turns=turns, trace_id="trace_1", lost="away"),
    )
    group = Group(prompt, completions, (Grade(1.0), Grade(0.0), Grade(0.5)))
    assert group_from_json(json.loads(json.dumps(group_to_json(group))), [prompt]) == group
