"""Hostile bodies to the endpoints that ask a model: no fault, and nothing kept that storage refuses."""

from __future__ import annotations

import random
from typing import Any

import httpx2 as httpx

from tests.app.http.test_hostile import BODIES, hostile
from tests.app.inference.model_server import ModelServer

RIGHT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "cherry-nano",
        "messages": [
            {"role": "system", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}], "name": "c"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "h",
                "tool_calls": [{"id": "d", "function": {"name": "e", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "d", "content": "f"},
        ],
        "n": 2,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": 1},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}},
        },
        "stream_options": {"include_usage": True},
        "store": True,
        "metadata": {"a": "b"},
        "tools": [{"type": "function", "function": {"name": "e", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "e"}},
        "reasoning_effort": "low",
        "chat_template_kwargs": {"g": 1},
    },
    "/v1/completions": {
        "model": "cherry-nano",
        "prompt": [[1, 2], [3]],
        "n": 1,
        "best_of": 2,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 5,
        "suffix": "",
    },
    "/v1/responses": {
        "model": "cherry-nano",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "b", "name": "c", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "b", "output": "d"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
        ],
        "instructions": "e",
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "low"},
        "tools": [{"type": "function", "name": "c", "parameters": {"type": "object"}, "strict": False}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "c"}],
        },
        "metadata": {"a": "b"},
        "max_output_tokens": 16,
    },
}


def test_no_mutation_of_a_right_body_makes_a_fault(http: httpx.Client, models: ModelServer) -> None:
    chance = random.Random(0)
    seen: dict[str, set[int]] = {}
    for number in range(BODIES // 2):
        path = list(RIGHT)[number % len(RIGHT)]
        body = hostile(RIGHT[path], chance)
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        seen.setdefault(path, set()).add(response.status_code)
        assert response.status_code < 500, (path, body, response.text)
    assert all({200, 400} <= statuses for statuses in seen.values()), seen
    assert models.asked
