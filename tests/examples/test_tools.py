"""A tool server of forty lines, a client's loop, and a model that was taught to call."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.tools import run
from examples.tools.server import PRICES
from tests.e2e.service import environment, running_service

BASE_AT_MOST, TUNED_AT_LEAST = 0.3, 0.7
"""Shares of answers that are right because of a call (the issue's bar)."""


def call_of(item: str) -> dict[str, Any]:
    arguments = json.dumps({"item": item})
    return {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_price"} | {
        "arguments": arguments,
        "trace_id": "trace_1",
        "item": {},
    }


@pytest.mark.parametrize(
    ("item", "output"), [(next(iter(PRICES)), None), ("nothing of the kind", "not found")]
)
def test_the_server_answers_a_call_in_the_form_of_tool_servers(item: str, output: str | None) -> None:
    with run.tool_server() as url:
        answer = httpx2.post(url, json=call_of(item)).json()
    expected = output or str(PRICES[item])
    assert answer == {"type": "function_call_output", "id": "fc_1", "call_id": "call_1", "output": expected}


def test_the_server_fits_on_a_page() -> None:
    lines = (run.HERE / "server.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_every_price_that_is_asked_for_is_known_to_the_server() -> None:
    for name in ("train", "valid", "unseen"):
        for row in run.read_rows(run.HERE, name):
            text = row["messages"][0]["content"]
            assert any(str(price) == row["reference"] and item in text for item, price in PRICES.items())


def test_a_conversation_is_shown_message_by_message() -> None:
    call = {"function": {"name": "get_price", "arguments": '{"item": "ciex"}'}}
    messages = [
        {"role": "user", "content": "Price of ciex?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "178"},
        {"role": "assistant", "content": "178"},
    ]
    assert run.shown(run.Conversation("178", 1, messages)) == [
        "user: Price of ciex?",
        'assistant calls get_price({"item": "ciex"})',
        "tool: 178",
        "assistant: 178",
    ]


@pytest.mark.e2e
@pytest.mark.long
def test_a_job_with_the_tool_makes_calling_a_habit() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        run.tool_server() as url,
        running_service(Path(folder) / "data", "--port", "0", env=environment(**run.MAY_CALL)) as service,
        service.client() as client,
    ):
        for seed in (7, 8, 9):
            found = run.teach_and_measure(client, url, seed, print).difference
            assert found.before <= BASE_AT_MOST
            assert found.after >= TUNED_AT_LEAST
            assert found.p < 0.05
