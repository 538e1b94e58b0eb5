"""Tool servers, as real local servers: Azure's wire, its bounds, and what happens when they fail."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from app.grading.patience import Gate
from app.outbound import OutboundRules, outbound_client, rules_of
from tests.app.grading.judge_servers import Answered, answered, asked, settings_with
from tests.app.webhooks.receivers import Received, receiver
from workers.environments.http_tools import HttpTool
from workers.environments.tool import MAX_BYTES
from workers.environments.tools import ToolEnvironment
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult, Turn
from workers.training.base.types import Completion
from workers.training.episodes.environment import EpisodeLost, Reply
from workers.training.episodes.tool_metrics import tool_metrics

LOOPBACK = rules_of(settings_with(outbound_allow="127.0.0.1", outbound_allow_http=True))
SECRET = "Bearer s3cr3t-of-the-user"
ITEM = {
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [
        {"type": "function", "function": {"name": "look_up"}},
        {"type": "function", "name": "count", "parameters": {}},
        {"type": "function", "function": {"name": "not_of_the_job"}},
    ],
    "reference_answer": "7",
}


def output(received: Received, text: Any, status: int = 200, **changes: Any) -> Answered:
    """What a server answers to a call."""
    body = asked(received)
    same = {"type": "function_call_output", "call_id": body["call_id"], "id": body["id"]}
    return answered({**same, "output": text, **changes}, status)


def environment(url: str, rules: OutboundRules = LOOPBACK, seconds: float = 20.0) -> ToolEnvironment:
    client = outbound_client(rules, total_seconds=seconds)
    names = ("look_up", "count", "not_in_the_row")
    return ToolEnvironment(
        {name: HttpTool(name, url, client, Gate(8), {"X-Auth": SECRET}, seconds) for name in names}
    )


def replied(answer: Any, *calls: ToolCall, **options: Any) -> tuple[Reply, list[Received]]:
    with receiver(answer) as server:
        episode = environment(server.url, **options).start(ITEM, "trace_1")
        return episode.reply(Parts(calls=calls)), server.received


def result_of(answer: Any, call: ToolCall, **options: Any) -> tuple[CallResult, list[Received]]:
    reply, received = replied(answer, call, **options)
    (result,) = reply.results
    return result, received


LOOK = ToolCall("look_up", {"key": "é", "n": 1})


def test_a_call_is_one_post_in_azures_form() -> None:
    result, (received,) = result_of(lambda call: output(call, "it is 7"), LOOK)
    assert (result.output, result.is_error, result.call) == ("it is 7", False, LOOK)
    body = asked(received)
    assert received.headers["x-auth"] == SECRET
    assert body.pop("id").startswith("fc_")
    assert body.pop("call_id") == result.call_id
    assert result.call_id.startswith("call_")
    assert json.loads(body.pop("arguments")) == {"key": "é", "n": 1}
    assert body == {"type": "function_call", "name": "look_up", "trace_id": "trace_1", "item": ITEM}


def test_calls_of_one_turn_are_made_side_by_side_and_answered_in_their_order() -> None:
    both = threading.Barrier(2)

    def answer(received: Received) -> Answered:
        both.wait(10)
        return output(received, f"of {asked(received)['name']}")

    reply, received = replied(answer, LOOK, ToolCall("count", {}))
    assert [result.output for result in reply.results] == ["of look_up", "of count"]
    assert {asked(each)["trace_id"] for each in received} == {"trace_1"}


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        pytest.param(lambda _: answered({"error": "gone"}, 404), '{"error": "gone"}', id="4xx"),
        pytest.param(lambda call: output(call, "no such key", 422), "no such key", id="4xx with output"),
        pytest.param(lambda call: output(call, "x" * MAX_BYTES), "413", id="too large"),
        pytest.param(lambda _: (401, {}, f"not {SECRET}".encode()), "not ***", id="secrets stay"),
    ],
)
def test_what_a_server_refuses_the_policy_reads(answer: Any, shown: str) -> None:
    result, received = result_of(answer, LOOK)
    assert result.is_error
    assert shown.replace('"', '\\"') in result.output or shown in result.output
    assert SECRET not in result.output
    assert len(received) == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param(rb'"a\u0000b"', "a\ufffdb", id="NUL"),
        pytest.param(rb'"a\ud83d"', "a\ufffd", id="the first half of a character"),
        pytest.param(rb'"\uDE00b"', "\ufffdb", id="its second half"),
        pytest.param(rb'"\ud83d\ude00"', "\U0001f600", id="both halves"),
        pytest.param(b'"a\xe9"', "a\ufffd", id="no UTF-8"),
        pytest.param(rb'{"k": "\ud83d"}', '{"k": "\ufffd"}', id="in JSON"),
    ],
)
def test_characters_that_nobody_can_read_are_replaced_and_lose_no_rollout(written: bytes, read: str) -> None:
    result, _ = result_of(lambda _: (200, {}, b'{"output": ' + written + b"}"), LOOK)
    assert (result.output, result.is_error) == (read, False)
    result.output.encode()


def test_calls_of_a_lost_turn_are_counted_those_that_failed_as_errors() -> None:
    def answer(received: Received) -> Answered:
        if asked(received)["name"] == "count":
            return answered("no answer of a tool", 302)
        return output(received, "7")

    with pytest.raises(EpisodeLost) as lost:
        replied(answer, LOOK, ToolCall("count", {}))
    assert [(one.call.name, one.output, one.is_error) for one in lost.value.results] == [
        ("look_up", "7", False),
        ("count", "", True),
    ]
    turns = (Turn(Parts(), 1, tuple(lost.value.results)),)
    found = tool_metrics("train", [Completion((1,), (0.0,), "", "stop", turns=turns, lost="it failed")])
    assert found["tools/train/calls_mean/count"] == found["tools/train/errors/count"] == 1
    assert found["tools/train/errors/look_up"] == 0


def test_an_error_without_output_is_json() -> None:
    result, _ = result_of(lambda _: (429, {}, b"slow down"), LOOK)
    assert json.loads(result.output) == {"error": {"code": 429, "message": "slow down"}}


def test_too_large_a_call_is_not_made() -> None:
    result, received = result_of(lambda call: output(call, "1"), ToolCall("look_up", {"k": "x" * MAX_BYTES}))
    assert json.loads(result.output)["error"]["code"] == 413
    assert not received


def test_a_function_that_row_or_job_do_not_name_is_answered_here() -> None:
    for name in ("made_up", "not_in_the_row", "not_of_the_job"):
        result, received = result_of(lambda call: output(call, "1"), ToolCall(name, {}))
        assert result.is_error
        assert "look_up, count" in json.loads(result.output)["error"]["message"]
        assert not received


def test_an_output_that_is_no_text_is_read_as_json() -> None:
    result, _ = result_of(lambda call: output(call, {"a": [1, "é"]}), LOOK)
    assert json.loads(result.output) == {"a": [1, "é"]}


def test_a_server_that_fails_is_asked_again_with_the_same_call() -> None:
    left = [500, 503]

    def answer(received: Received) -> Answered:
        return answered({}, left.pop()) if left else output(received, "at last")

    result, received = result_of(answer, LOOK)
    assert result.output == "at last"
    assert len({received.body for received in received}) == 1
    assert len(received) == 3


@pytest.mark.parametrize(
    ("answer", "tries", "words"),
    [
        pytest.param(lambda _: answered({}, 500), 4, "answered 500", id="5xx"),
        pytest.param(lambda _: (302, {"location": "http://169.254.169.254/"}, b""), 1, "302", id="redirect"),
        pytest.param(lambda _: (200, {}, b"<html>"), 1, "must answer", id="no json"),
        pytest.param(lambda _: answered({"result": 1}), 1, "must answer", id="no output"),
        pytest.param(lambda c: output(c, "1", call_id="call_0"), 1, "another call", id="another call"),
    ],
)
def test_a_server_that_stays_broken_loses_the_episode(answer: Any, tries: int, words: str) -> None:
    with receiver(answer) as server:
        episode = environment(server.url).start(ITEM, "trace_1")
        with pytest.raises(EpisodeLost, match=words) as lost:
            episode.reply(Parts(calls=(LOOK,)))
        assert "look_up" in str(lost.value)
        assert len(server.received) == tries


def test_a_server_that_is_too_slow_loses_the_episode() -> None:
    release = threading.Event()

    def answer(received: Received) -> Answered:
        release.wait(30)
        return output(received, "late")

    with receiver(answer) as server:
        episode = environment(server.url, seconds=0.3).start(ITEM, "t")
        with pytest.raises(EpisodeLost, match="did not answer"):
            episode.reply(Parts(calls=(LOOK,)))
        release.set()


def test_a_url_inside_the_network_is_never_called() -> None:
    closed = rules_of(settings_with(outbound_allow_http=True))
    with receiver(lambda call: output(call, "1")) as server:
        with pytest.raises(EpisodeLost, match="cannot be called"):
            environment(server.url, closed).start(ITEM, "t").reply(Parts(calls=(LOOK,)))
        assert not server.received


def test_a_turn_without_calls_ends_the_episode() -> None:
    reply, received = replied(lambda call: output(call, "1"))
    assert reply.is_over
    assert not received


def test_functions_that_the_policy_invents_are_counted_under_one_name() -> None:
    """They would be a metric, and a column of the result file, each."""
    calls = (LOOK, ToolCall("David_of", {}), ToolCall("a,b\n" * 99, {}))
    reply, _ = replied(lambda call: output(call, "1"), *calls)
    turn = Turn(Parts(calls=calls), 5, tuple(reply.results))
    values = tool_metrics("train", [Completion((1,), (0.0,), "", "stop", turns=(turn,))])
    called = {name: value for name, value in values.items() if "calls_mean" in name}
    assert called == {"tools/train/calls_mean/look_up": 1.0, "tools/train/calls_mean/(unknown)": 2.0}
