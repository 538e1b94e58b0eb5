"""Supervised and preference rows: each fault is named with its line, and what is good passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from methods.rows import DatasetInvalid, read_rows
from methods.tuning_rows import row_check

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
PAIR: dict[str, Any] = {
    "input": {"messages": [USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [{"role": "assistant", "content": "No"}],
}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}


def faults(tmp_path: Path, method: str, *rows: Any) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        read_rows(file, check=row_check(method))
    except DatasetInvalid as invalid:
        return str(invalid)
    return ""


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {
            "messages": [USER, CALL, {"role": "tool", "content": "1", "tool_call_id": "1"}, ANSWER],
            "tools": [{}],
        },
        {
            "messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}],
            "functions": [{"name": "f"}],
        },
        {"messages": [USER, ANSWER], "parallel_tool_calls": False},
        {"messages": [ANSWER, USER]},
    ],
)
def test_chat_rows_pass(tmp_path: Path, row: Any) -> None:
    assert faults(tmp_path, "supervised", row) == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([USER, ANSWER], "a row is a JSON object, not a list"),
        ({}, "'messages' is missing"),
        (PAIR, "a preference row is for the method 'dpo'"),
        ({"prompt": "a", "completion": "b"}, "are for completion models"),
        ({"messages": []}, "at least one message"),
        ({"messages": [USER]}, "no message from the assistant to learn from"),
        ({"messages": [USER]}, "are for the method 'reinforcement'"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "every message from the assistant has weight 0"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, "messages[1].weight must be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, "messages[1].weight must be 0 or 1"),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "only messages from the assistant"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1] has no 'content'"),
        ({"messages": [USER, {"content": "x"}]}, "messages[1] has no 'role'"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role is"),
        ({"messages": [USER, ANSWER], "functions": []}, "'functions' must be a list of 1 to 128"),
        ({"messages": [USER, ANSWER], "tools": "x"}, "'tools' must be a list of objects"),
        ({"messages": [USER, ANSWER], "parallel_tool_calls": 1}, "must be true or false"),
    ],
)
def test_a_bad_chat_row_is_named_with_its_line(tmp_path: Path, row: Any, reason: str) -> None:
    found = faults(tmp_path, "supervised", {"messages": [USER, ANSWER]}, row)
    assert found.startswith("line 2: ")
    assert reason in found


def test_preference_rows_pass(tmp_path: Path) -> None:
    assert (
        faults(tmp_path, "dpo", PAIR, PAIR | {"input": {"messages": [USER, ANSWER, USER], "tools": []}}) == ""
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": None}, "'input' is missing"),
        ({"input": [USER]}, "'input' must be an object, not a list"),
        ({"input": {}}, "'input.messages' is missing"),
        ({"input": {"messages": [USER, ANSWER]}}, "answers go in the two outputs"),
        ({"preferred_output": None}, "'preferred_output' is missing"),
        ({"preferred_output": ANSWER}, "'preferred_output' must be a list with one message"),
        ({"preferred_output": [ANSWER, ANSWER]}, "'preferred_output' must be a list with one message"),
        ({"non_preferred_output": [USER]}, "must be from the assistant, not 'user'"),
        ({"non_preferred_output": [ANSWER]}, "are the same"),
    ],
)
def test_a_bad_preference_row_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    found = faults(tmp_path, "dpo", PAIR, PAIR | change)
    assert found.startswith("line 2: ")
    assert reason in found


def test_a_chat_row_in_a_dpo_job_says_where_it_belongs(tmp_path: Path) -> None:
    found = faults(tmp_path, "dpo", {"messages": [USER, ANSWER]})
    assert "a row of 'messages' is for the method 'supervised'" in found
