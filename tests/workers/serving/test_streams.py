"""Streams of the sampler: OpenAI's sequence of chunks, the text of one piece, ended with their client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from tests.factories import Tenant, make_model
from tests.tiny_model import make_tiny_model
from tests.workers.serving.support import HELLO, TOKEN, chat, complete
from tests.workers.serving.tokenizers_of_kinds import tokenizer_of


def chunks_of(client: openai.OpenAI, **changes: Any) -> list[Any]:
    return list(chat(client, stream=True, **changes))


def texts_of(chunks: list[Any]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return texts


def test_a_stream_has_openais_sequence_and_the_text_of_one_piece(client: openai.OpenAI) -> None:
    whole = chat(client, n=3, temperature=0.7)
    chunks = chunks_of(client, n=3, temperature=0.7, stream_options={"include_usage": True})
    assert texts_of(chunks) == {choice.index: choice.message.content for choice in whole.choices}
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    *told, usage = chunks
    assert usage.choices == []
    assert usage.usage.completion_tokens == 36
    assert usage.usage.prompt_tokens == whole.usage.prompt_tokens
    for index in range(3):
        own = [choice for chunk in told for choice in chunk.choices if choice.index == index]
        assert own[0].delta.model_dump(exclude_none=True) == {"role": "assistant", "content": ""}
        assert own[-1].delta.model_dump(exclude_none=True) == {}
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in told)


def test_the_clients_own_reader_of_streams_gathers_the_completion(client: openai.OpenAI) -> None:
    text = chat(client).choices[0].message.content
    stop = next(letter for letter in text[4:] if letter.isascii() and letter not in text[:4])
    asked: dict[str, Any] = {"stop": [stop], "logprobs": True, "top_logprobs": 2}
    whole = chat(client, **asked).choices[0]
    assert len(whole.message.content) >= 4
    with client.chat.completions.stream(
        model="tiny", messages=HELLO, max_completion_tokens=12, seed=5, **asked  # type: ignore[arg-type]
    ) as stream:  # fmt: skip
        gathered = stream.get_final_completion().choices[0]
    assert gathered.message.content == whole.message.content
    assert gathered.logprobs == whole.logprobs


def joined(content: list[Any]) -> str:
    return b"".join(bytes(token.bytes) for token in content).decode()


def test_the_bytes_of_logprobs_are_the_content(client: openai.OpenAI) -> None:
    reply = chat(client, n=4, temperature=1.5, logprobs=True, top_logprobs=3, max_completion_tokens=40)
    for choice in reply.choices:
        content = choice.logprobs.content
        assert joined(content) == choice.message.content
        for token in content:
            likely = [other.logprob for other in token.top_logprobs]
            assert len(likely) == 3
            assert likely == sorted(likely, reverse=True)


def test_a_stop_string_is_never_told_in_part(client: openai.OpenAI) -> None:
    text = chat(client, temperature=0, max_completion_tokens=30).choices[0].message.content
    stop = text[8:11]
    whole = chat(client, temperature=0, max_completion_tokens=30, stop=[stop], logprobs=True).choices[0]
    assert whole.message.content == text[: text.index(stop)]
    assert joined(whole.logprobs.content) == whole.message.content
    chunks = chunks_of(client, temperature=0, max_completion_tokens=30, stop=[stop])
    assert texts_of(chunks)[0] == whole.message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_an_end_token_is_counted_and_not_told(client: openai.OpenAI) -> None:
    end = tokenizer_of("bytes").eos_token_id
    reply = chat(client, logit_bias={str(end): 100}, logprobs=True)
    assert reply.choices[0].message.content == ""
    assert reply.choices[0].logprobs.content == []
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("stop", 1)


def test_texts_with_spaces_of_their_own_and_split_characters(
    client: openai.OpenAI, tenant: Tenant, db: Session, tmp_path: Path
) -> None:
    """A tokenizer that drops a text's first space, and has single bytes for what it has no piece of."""
    tokenizer = tokenizer_of("first space dropped")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.pad_token = "<unk>"
    make_model(db, "pieces", make_tiny_model(tmp_path / "pieces", tokenizer=tokenizer))
    db.commit()
    vocabulary = tokenizer.get_vocab()
    likely = {str(vocabulary[name]): 40 for name in ("▁a", "▁hello", "b", "<0xC3>", "<0xA9>")}
    asked: dict[str, Any] = {"model": "pieces", "messages": [{"role": "user", "content": "a b"}], "n": 8}
    reply = chat(client, **asked, logit_bias=likely, logprobs=True)
    contents = [choice.message.content for choice in reply.choices]
    assert [joined(choice.logprobs.content) for choice in reply.choices] == contents
    assert any(" hello" in content for content in contents)
    assert any("é" in content for content in contents)
    chunks = chunks_of(client, **asked, logit_bias=likely)
    assert texts_of(chunks) == dict(enumerate(contents))


def test_a_text_is_completed_and_echoed_with_its_logprobs(loose: openai.OpenAI) -> None:
    plain = complete(loose, logprobs=2)
    reply = complete(loose, echo=True, logprobs=2).choices[0]
    text = plain.choices[0].text
    assert reply.text == "hello" + text
    told = reply.logprobs
    assert told.tokens[:5] == list("hello")
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    assert told.tokens[5:] == plain.choices[0].logprobs.tokens
    assert told.token_logprobs[5:] == pytest.approx(plain.choices[0].logprobs.token_logprobs)
    assert plain.choices[0].logprobs.text_offset[0] == 0
    assert told.text_offset[:6] == [0, 1, 2, 3, 4, 5]
    for offset, token in zip(told.text_offset, told.tokens, strict=True):
        assert token.startswith("bytes:") or reply.text[offset : offset + len(token)] == token
    for top, token, logprob in zip(
        told.top_logprobs[1:], told.tokens[1:], told.token_logprobs[1:], strict=True
    ):
        assert top[token] == logprob
        assert 2 <= len(top) <= 3


def test_a_prompt_is_scored_without_writing_anything(loose: openai.OpenAI) -> None:
    alone = complete(loose, echo=True, logprobs=0, max_tokens=0)
    assert (alone.choices[0].text, alone.choices[0].finish_reason) == ("hello", "length")
    assert (alone.usage.prompt_tokens, alone.usage.completion_tokens) == (5, 0)
    longer = complete(loose, prompt="hello you", echo=True, logprobs=0, max_tokens=0)
    assert longer.choices[0].logprobs.token_logprobs[1:5] == pytest.approx(
        alone.choices[0].logprobs.token_logprobs[1:]
    )


def test_several_prompts_as_texts_and_as_ids(loose: openai.OpenAI) -> None:
    tokenizer = tokenizer_of("bytes")
    prompts = ["hello", "good day"]
    reply = complete(loose, prompt=prompts, n=2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.usage.prompt_tokens == sum(map(len, prompts))
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert [c.text for c in complete(loose, prompt=ids, n=2).choices] == [c.text for c in reply.choices]
    assert complete(loose, prompt=ids[0], n=2).choices == reply.choices[:2]
    told: dict[int, str] = {}
    for chunk in complete(loose, prompt=prompts, n=2, stream=True):
        for choice in chunk.choices:
            told[choice.index] = told.get(choice.index, "") + choice.text
    assert told == {choice.index: choice.text for choice in reply.choices}


REFUSED = {
    "echo": ({"max_tokens": 0}, "max_tokens"),
    "prompt": ({"prompt": {"a": 1}}, "prompt"),
    "mixed": ({"prompt": ["a", 1]}, "prompt"),
    "id": ({"prompt": [1, 10_000]}, "prompt"),
    "long": ({"prompt": "x" * 600}, "prompt"),
    "suffix": ({"suffix": "x"}, "suffix"),
    "logprobs": ({"logprobs": 6}, "logprobs"),
    "bias": ({"logit_bias": {"x": 1}}, "logit_bias"),
}


def test_what_cannot_be_completed_is_refused_by_name(client: openai.OpenAI) -> None:
    for change, param in REFUSED.values():
        for streams in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                complete(client, **change, stream=streams)
            assert caught.value.param == param


def test_messages_are_counted_as_a_completion_counts_them(
    client: openai.OpenAI, sampler: tuple[str, Starlette], tenant: Tenant
) -> None:
    url = f"{sampler[0]}/projects/{tenant.project_id}/v1/tokenize"
    asked = {"model": "tiny", "messages": HELLO}
    counted = httpx2.post(url, json=asked, headers={"authorization": f"Bearer {TOKEN}"})
    assert counted.json() == {"count": chat(client).usage.prompt_tokens}
    assert httpx2.post(url, json=asked).status_code == 401


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition of the sampler, which is another thread's."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_away_ends_its_completions(
    sampler: tuple[str, Starlette], client: openai.OpenAI, tenant: Tenant, streams: bool
) -> None:
    engine = sampler[1].state.engine
    chat(client)  # the model is there
    host, port = sampler[0].removeprefix("http://").split(":")
    body = (
        '{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "n": 4, "temperature": 0,'
        f' "logit_bias": {{"{tokenizer_of("bytes").eos_token_id}": -100}}, "stream": {str(streams).lower()}}}'
    )
    request = (
        f"POST /projects/{tenant.project_id}/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {TOKEN}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    cancelled = engine.counts.cancelled
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request.encode())
        until(lambda: bool(engine.counts.running))
    until(lambda: engine.counts.cancelled == cancelled + 1)
    until(lambda: not engine.counts.running)
    assert chat(client).choices  # and it goes on
