"""The items that a model writes, and the events that each of them comes about in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from app.ids import random_id
from app.inference.reply import CallPiece, Piece
from app.responses.items import (
    OUTPUT_TEXT,
    PREFIXES,
    REASONING_TEXT,
    Item,
    output_call,
    output_message,
    output_text,
    output_thoughts,
)

Kind = Literal["message", "reasoning", "function_call"]
ID_LENGTH = 32
WHOLE = ("stop", "tool_calls", "function_call")
"""Reasons for which a model that has said all it wanted ends."""


class Event(NamedTuple):
    """One event without its number."""

    type: str
    members: dict[str, Any]


class Output:
    """The items of one response, the last of which grows."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self.finish_reason = "length"
        """Why the model ended; where it has not said, it counts as cut."""

    def add(self, pieces: Sequence[Piece]) -> Iterator[Event]:
        """Takes the next pieces, and yields what is told of them."""
        for piece in pieces:
            if piece.thoughts:
                yield from self._grow("reasoning", piece.thoughts)
            if piece.text or piece.logprobs:
                yield from self._grow("message", piece.text, [_token(one) for one in piece.logprobs or ()])
            for call in piece.calls:
                yield from self._grow("function_call", call.arguments, call=call)
            self.finish_reason = piece.finish_reason or self.finish_reason

    def end(self) -> Iterator[Event]:
        """Yields what the end tells: a model that wrote nothing has written an empty message."""
        if not self._items:
            yield from self._open("message")

    def items(self, status: str) -> list[Item]:
        """Returns the items; what is unfinished of a response is the last of them."""
        *whole, last = self._items
        return [*(item.told("completed") for item in whole), last.told(status)]

    def _grow(
        self,
        kind: Kind,
        text: str,
        logprobs: Sequence[Item] = (),
        call: CallPiece | None = None,
    ) -> Iterator[Event]:
        if not self._items or not self._items[-1].goes_on(kind, call):
            yield from self._open(kind, call)
        item = self._items[-1]
        item.texts.append(text)
        item.logprobs += logprobs
        if text or logprobs:
            yield _delta(len(self._items) - 1, item.head, text, logprobs)

    def _open(self, kind: Kind, call: CallPiece | None = None) -> Iterator[Event]:
        if self._items:
            yield from closed(len(self._items) - 1, self._items[-1].told("completed"))
        self._items.append(_Item(kind, call))
        yield from _opened(len(self._items) - 1, self._items[-1].told("in_progress"))


class _Item:
    """One item that grows."""

    def __init__(self, kind: Kind, call: CallPiece | None) -> None:
        self.kind = kind
        self.call = call
        self.texts: list[str] = []
        self.logprobs: list[Item] = []
        self.head = {"id": random_id(PREFIXES[kind], ID_LENGTH), "type": kind}

    def goes_on(self, kind: Kind, call: CallPiece | None) -> bool:
        """Tells whether the next piece belongs to this item."""
        is_same_call = call is None or (self.call is not None and call.number == self.call.number)
        return kind == self.kind and is_same_call

    def told(self, status: str) -> Item:
        """Returns the item as it stands."""
        text = "".join(self.texts)
        if self.kind == "reasoning":
            return output_thoughts(self.head["id"], status, text)
        if self.call is not None:
            return output_call(self.head["id"], status, self.call.id or "", self.call.name or "", text)
        return output_message(self.head["id"], status, [output_text(text, self.logprobs)])


def replayed(items: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    """Yields the events that items come about in, each item's text in one piece, but for the last's end."""
    for index, item in enumerate(items):
        yield from _opened(index, item)
        text = _text(item)
        if text or item["type"] == "message":
            yield _delta(index, item, text, _logprobs(item))
        if index < len(items) - 1:
            yield from closed(index, item)


def closed(index: int, item: Mapping[str, Any]) -> Iterator[Event]:
    """Yields what is told of an item once it has all its text."""
    place = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        members = {"name": item["name"], "arguments": item["arguments"]}
        yield Event("response.function_call_arguments.done", {**place, **members})
    else:
        place["content_index"] = 0
        (part,) = item["content"]
        told = {"text": part["text"]}
        if part["type"] == OUTPUT_TEXT:
            told["logprobs"] = [_short(token) for token in part["logprobs"]]
        yield Event(f"response.{part['type']}.done", {**place, **told})
        yield Event("response.content_part.done", {**place, "part": part})
    yield Event("response.output_item.done", {"output_index": index, "item": item})


def _opened(index: int, item: Mapping[str, Any]) -> Iterator[Event]:
    is_call = item["type"] == "function_call"
    blank: Item = {"arguments": ""} if is_call else {"content": []}
    begun = {**item, "status": "in_progress", **blank}
    yield Event("response.output_item.added", {"output_index": index, "item": begun})
    if not is_call:
        (part,) = item["content"]
        empty = output_text("") if part["type"] == OUTPUT_TEXT else {"type": REASONING_TEXT, "text": ""}
        place = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield Event("response.content_part.added", {**place, "part": empty})


def _delta(index: int, item: Mapping[str, Any], text: str, logprobs: Sequence[Item]) -> Event:
    place = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        return Event("response.function_call_arguments.delta", {**place, "delta": text})
    place = {**place, "content_index": 0, "delta": text}
    if item["type"] == "reasoning":
        return Event("response.reasoning_text.delta", place)
    told = [_short(token) for token in logprobs]
    return Event("response.output_text.delta", {**place, "logprobs": told})


def _text(item: Mapping[str, Any]) -> str:
    text: str = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
    return text


def _logprobs(item: Mapping[str, Any]) -> list[Item]:
    return item["content"][0]["logprobs"] if item["type"] == "message" else []


def _token(token: Mapping[str, Any]) -> Item:
    """Returns a token with its log probability, as items hold it: its bytes are never null."""
    return {**_alternative(token), "top_logprobs": [_alternative(one) for one in token["top_logprobs"]]}


def _alternative(token: Mapping[str, Any]) -> Item:
    return {"token": token["token"], "logprob": token["logprob"], "bytes": token.get("bytes") or []}


def _short(token: Mapping[str, Any]) -> Item:
    """Returns a token as events of text hold it: without bytes."""
    others = [{"token": one["token"], "logprob": one["logprob"]} for one in token["top_logprobs"]]
    return {"token": token["token"], "logprob": token["logprob"], "top_logprobs": others}
