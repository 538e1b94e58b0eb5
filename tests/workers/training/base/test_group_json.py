"""Graded groups survive being written as JSON."""

from __future__ import annotations

import json

from graders import Grade
from workers.training.base.group_json import group_from_json, group_to_json
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.types import Completion, Group, Prompt


def test_given_tokens_and_parts_come_back_as_they_were():
    prompt = Prompt(0, {}, (1, 2))
    parts = Parts("hm", "4", (ToolCall("add", {"a": 1, "b": [2.5, None]}),), thought_tokens=3)
    completions = (
        Completion((3, 4), (-0.5, 0.0), "x", "stop", given=(False, True), parts=parts),
        Completion((5,), (-0.25,), "y", "length"),
    )
    group = Group(prompt, completions, (Grade(1.0), Grade(0.0)))
    assert group_from_json(json.loads(json.dumps(group_to_json(group))), [prompt]) == group
