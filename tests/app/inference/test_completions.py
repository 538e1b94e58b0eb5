"""Text completions: prompts in every form, the best of several, and streams."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest

from app.completions.completion import best
from tests.app.inference.model_server import ModelServer
from tests.app.inference.refusals import check_refused
from tests.app.inference.test_chat import events

PATH = "/v1/completions"
ASKED: dict[str, Any] = {"model": "cherry-nano", "prompt": "Once"}


def test_a_whole_completion(client: openai.OpenAI, models: ModelServer) -> None:
    made = client.completions.create(
        model="cherry-nano", prompt=["a", "b"], n=2, logprobs=1, echo=True, stop="x"
    )
    assert [choice.text for choice in made.choices][:2] == ["Once upon a time"] * 2
    assert made.choices[0].logprobs.tokens == list(models.words)  # type: ignore[union-attr]
    assert made.usage.total_tokens == 11  # type: ignore[union-attr]
    (asked,) = models.asked
    assert {name: asked[name] for name in ("prompt", "n", "max_tokens", "logprobs", "echo", "stop")} == {
        "prompt": ["a", "b"],
        "n": 2,
        "max_tokens": 16,
        "logprobs": 1,
        "echo": True,
        "stop": ["x"],
    }


def test_a_stream(http: httpx.Client, models: ModelServer) -> None:
    *chunks, last = events(http, {**ASKED, "stream_options": {"include_usage": True}}, PATH)
    assert last == "[DONE]"
    *said, usage = chunks
    assert [chunk["choices"][0]["text"] for chunk in said] == [*models.words, ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in said] == [None] * 4 + ["stop"]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 11)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def drawn(text: str, *logprobs: float) -> dict[str, Any]:
    offsets = list(range(len(logprobs)))
    told = {"tokens": ["x"] * len(logprobs), "token_logprobs": list(logprobs), "text_offset": offsets}
    return {"text": text, "index": 0, "logprobs": told, "finish_reason": "stop"}


def test_the_best_by_mean_logprob_are_given_of_each_prompt() -> None:
    choices = [drawn("a", -3, -1), drawn("b", -1.5), drawn("c", -9, 0), drawn("d", -2)]
    chosen = best(choices, ["p", "q"], of=2, n=1, echo=False)
    assert [(choice["text"], choice["index"]) for choice in chosen] == [("b", 0), ("d", 1)]
    echoed = [drawn("a", -1, -9), drawn("b", -2, -3)]
    for prompt in ("p", [5]):
        assert best(echoed, [prompt], of=2, n=1, echo=True)[0]["text"] == "b"


def test_best_of_asks_for_more_than_it_gives(http: httpx.Client, models: ModelServer) -> None:
    made = http.post(PATH, json={**ASKED, "n": 2, "best_of": 5}).json()
    assert (models.asked[0]["n"], models.asked[0]["logprobs"]) == (5, 0)
    assert [choice["index"] for choice in made["choices"]] == [0, 1]
    assert made["choices"][0]["logprobs"] is None


def test_logprobs_of_no_tokens_are_empty_where_they_were_asked_for(
    http: httpx.Client, models: ModelServer
) -> None:
    models.words = ()
    (choice,) = http.post(PATH, json={**ASKED, "logprobs": 0}).json()["choices"]
    assert choice["logprobs"] == {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    assert http.post(PATH, json=ASKED).json()["choices"][0]["logprobs"] is None


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a prompt": ({"prompt": {"a": 1}}, "prompt", "invalid_type"),
    "mixed prompts": ({"prompt": ["a", 1]}, "prompt", "invalid_type"),
    "no prompts": ({"prompt": []}, "prompt", "invalid_type"),
    "many prompts": ({"prompt": ["a"] * 20, "n": 128}, "prompt", "array_above_max_length"),
    "best_of": ({"n": 3, "best_of": 2}, "best_of", "integer_below_min_value"),
    "best_of 21": ({"best_of": 21}, "best_of", "integer_above_max_value"),
    "a best stream": ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
    "logprobs": ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
    "nothing": ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    "a suffix": ({"suffix": "end"}, "suffix", "unsupported_parameter"),
    "unknown": ({"messages": []}, "messages", "unknown_parameter"),
}


def test_what_cannot_be_had_is_refused_by_name(
    http: httpx.Client, models: ModelServer, subtests: pytest.Subtests
) -> None:
    check_refused(http, PATH, ASKED, REFUSED, subtests)
    assert models.asked == []
    for prompt in ("", [1, 2], [[1], [2]], None):
        harmless = {"prompt": prompt, "best_of": 0, "suffix": None}
        assert http.post(PATH, json={**ASKED, **harmless}).status_code == 200
