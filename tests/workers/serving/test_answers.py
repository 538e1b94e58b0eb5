"""What the engine tells becomes chunks: failures under way, texts that end before the engine sees it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from app.errors import ApiError, ServerError, Unavailable
from tests.workers.serving.tokenizers_of_kinds import tokenizer_of
from workers.serving.answers import FEW_STREAMS, LONGEST_PAUSE, Answer, Hop, Pace
from workers.serving.chunks import ChatWire, Choice
from workers.serving.completion_text import CompletionText
from workers.serving.requests import Event, Failed, Started, Token
from workers.serving.token_texts import TokenTexts

TEXTS = TokenTexts(tokenizer_of("bytes"))


class Ticket:
    """Counts how often a request was cancelled."""

    def __init__(self) -> None:
        self.cancels = 0

    def cancel(self) -> None:
        self.cancels += 1


def answer_of(samples: int = 1, stops: tuple[str, ...] = ()) -> tuple[Answer, Ticket]:
    answer, ticket = Answer(ChatWire("tiny", has_logprobs=False, has_usage=True)), Ticket()
    choices = [Choice(i, CompletionText(TEXTS, frozenset(), stops), TEXTS) for i in range(samples)]
    answer.add(choices, None, is_read=False).ticket = ticket
    return answer, ticket


def tokens(text: str, sample: int = 0, finish: Any = None) -> list[Token]:
    ids = tokenizer_of("bytes")(text)["input_ids"]
    return [
        Token(sample, token, -1.0, (), finish if i == len(ids) - 1 else None) for i, token in enumerate(ids)
    ]


def told(answer: Answer, events: list[Event], *, has_begun: bool = False) -> tuple[list[Any], int]:
    """What a stream says of events that another thread tells, and how often the event loop was called."""

    async def read() -> tuple[list[Any], int]:
        loop = asyncio.get_running_loop()
        calls = []
        call = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: (calls.append(given), call(*given))[1]  # type: ignore[method-assign]
        tell = Hop(loop).teller(answer.parts[0])
        thread = threading.Thread(target=lambda: [tell(event) for event in events])
        thread.start()
        thread.join()  # all were told before the loop has looked once
        if not has_begun:
            await answer.begun()
        text = "".join([chunk async for chunk in answer.stream(lambda: 0.0)])
        lines = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
        return [line if line == "[DONE]" else json.loads(line) for line in lines], len(calls)

    return asyncio.run(read())


def test_events_that_have_come_by_then_cost_one_call_and_one_chunk_a_choice() -> None:
    answer, _ = answer_of(samples=2)
    events: list[Event] = [Started(3, 2, None)]
    events += [tokens("ab", sample) for sample in (0, 1)] + [tokens("c", s, "length") for s in (0, 1)]
    chunks, calls = told(answer, events)
    assert calls == 1
    deltas = [(c["choices"][0]["index"], c["choices"][0]["delta"].get("content")) for c in chunks[:-2]]
    assert deltas == [(0, ""), (0, "abc"), (0, None), (1, ""), (1, "abc"), (1, None)]
    usage = chunks[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 6, 9)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2
    assert chunks[-1] == "[DONE]"


def test_a_failure_under_way_ends_the_stream_with_its_error() -> None:
    answer, _ = answer_of()
    chunks, _ = told(
        answer, [Started(1, 0, None), tokens("a"), Failed(ServerError("It broke."))], has_begun=True
    )
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1]] == ["", "a"]
    assert chunks[-1]["error"] == {
        "message": "It broke.",
        "type": "server_error",
        "param": None,
        "code": None,
    }


def test_a_failure_before_the_first_token_is_raised() -> None:
    answer, _ = answer_of()
    with pytest.raises(ApiError) as caught:
        told(answer, [Failed(Unavailable("Full.", headers={"retry-after": "3"}))])
    assert caught.value.headers == {"retry-after": "3"}


def test_a_text_that_ends_before_the_engine_sees_it_lets_the_engine_go() -> None:
    answer, ticket = answer_of(stops=("b",))
    chunks, _ = told(answer, [Started(1, 0, None), tokens("abcd")])
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-2]] == ["", "a", None]
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert ticket.cancels == 1


def test_what_comes_after_the_client_has_gone_is_dropped() -> None:
    answer, ticket = answer_of()
    answer.close()
    assert told(answer, [Started(1, 0, None), tokens("abcd")])[0] == []
    assert ticket.cancels == 1
    assert answer.parts[0].choices[0].text.tokens == 0


def test_the_more_streams_there_are_the_longer_each_gathers_text_and_never_for_long() -> None:
    pace = Pace()
    pauses = []
    for streams in (1, FEW_STREAMS, 8, 64, 500):
        pace.streams = streams
        pauses.append(pace())
    assert pauses[:2] == [0.0, 0.0]
    assert 0 < pauses[2] < pauses[3] <= pauses[4] == LONGEST_PAUSE
