"""Completions in OpenAI's shapes: the chunks of a stream, and whole answers.

Chunks are put together from texts, as they are many: a service may write thousands a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple, Protocol

from app.ids import random_id
from workers.serving.completion_text import Finish, Piece, text_of
from workers.serving.parts.calls_told import Told, whole_calls
from workers.serving.requests import PromptToken, Token
from workers.serving.token_texts import TokenTexts

LEAST_LOGPROB = -9999.0
"""Stands for everything less likely, as at OpenAI."""
FINGERPRINT = "cherry"
DONE = "data: [DONE]\n\n"


class Usage(NamedTuple):
    """Counts the tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    thought_tokens: int = 0

    def told(self) -> dict[str, Any]:
        """Returns it as OpenAI has it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.thought_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


class Echo(NamedTuple):
    """Is a prompt that is told before its completion, with its tokens' shares of its text."""

    text: str
    tokens: Sequence[PromptToken]
    shares: Sequence[bytes]


class Text(Protocol):
    """Reads one completion; what of it is certain can be taken."""

    finish: Finish | None

    @property
    def tokens(self) -> int:
        """Returns how many tokens were sampled."""

    @property
    def thought_tokens(self) -> int:
        """Returns how many of them are thoughts."""

    def push(self, token: Token) -> bool:
        """Takes the next token; says whether the completion has ended."""

    def take(self) -> list[Piece]:
        """Returns the pieces of the answer that were not taken yet."""


class TextOfParts(Text, Protocol):
    """Reads a completion that may have thoughts and calls too."""

    def take_thoughts(self) -> str:
        """Returns the text of the thoughts that was not taken yet."""

    def take_calls(self) -> list[Told]:
        """Returns the pieces of calls that were not taken yet."""


class Choice:
    """Is one completion on the wire. `parts` is its text where that may have thoughts and calls."""

    def __init__(self, index: int, text: Text, texts: TokenTexts, parts: TextOfParts | None = None) -> None:
        self.index = index
        self.text = text
        self.parts = parts
        self.texts = texts
        self.echo: Echo | None = None
        self.offset = 0
        """Characters that were told before the next token."""


class Wire(Protocol):
    """Knows one of OpenAI's shapes, for one request."""

    def opening(self, choice: Choice) -> str:
        """Returns what a choice's stream begins with."""

    def piece(self, choice: Choice, pieces: Sequence[Piece]) -> str:
        """Returns the chunk of so much more text; nothing where there is nothing to tell."""

    def last(self, choice: Choice) -> str:
        """Returns the chunk that says why a choice has ended."""

    def usage(self, usage: Usage) -> str:
        """Returns the chunk that counts tokens; nothing where that was not asked for."""

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """Returns the answer of a request that does not stream."""


class _Envelope:
    """Is what all chunks of one request have in common."""

    def __init__(self, prefix: str, kind: str, model: str, *, has_usage: bool) -> None:
        self._common = {
            "id": random_id(prefix),
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._start = f"data: {json.dumps(self._common)[:-1]}, " + '"choices": ['
        self._end = '], "usage": null}\n\n' if has_usage else "]}\n\n"
        self._has_usage = has_usage

    def chunk(self, choice: str) -> str:
        return f"{self._start}{choice}{self._end}"

    def usage(self, usage: Usage) -> str:
        if not self._has_usage:
            return ""
        return f'{self._start}], "usage": {json.dumps(usage.told())}}}\n\n'

    def whole(self, kind: str, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {**self._common, "object": kind, "choices": choices, "usage": usage.told()}


class ChatWire:
    """Writes chat completions."""

    def __init__(self, model: str, *, has_logprobs: bool, has_usage: bool) -> None:
        self._envelope = _Envelope("chatcmpl-", "chat.completion.chunk", model, has_usage=has_usage)
        self._has_logprobs = has_logprobs

    def opening(self, choice: Choice) -> str:
        """Returns the chunk that names the role."""
        delta = '{"role": "assistant", "content": "", "refusal": null}'
        return self._chunk(choice, delta)

    def piece(self, choice: Choice, pieces: Sequence[Piece]) -> str:
        """Returns the chunk of so much more text; nothing where there is nothing to tell."""
        text, told = text_of(pieces), ""
        if choice.parts is not None and (thoughts := choice.parts.take_thoughts()):
            told = self._chunk(choice, json.dumps({"reasoning_content": thoughts}))
        if text or (self._has_logprobs and pieces):
            logprobs = json.dumps(self._logprobs(choice, pieces)) if self._has_logprobs else "null"
            told += self._chunk(choice, f'{{"content": {encode_basestring_ascii(text)}}}', logprobs)
        for call in choice.parts.take_calls() if choice.parts is not None else ():
            told += self._chunk(choice, json.dumps({"tool_calls": [call.piece()]}))
        return told

    def last(self, choice: Choice) -> str:
        """Returns the chunk that says why a choice has ended."""
        return self._chunk(choice, "{}", finish=f'"{choice.text.finish}"')

    def usage(self, usage: Usage) -> str:
        """Returns the chunk that counts tokens; nothing where that was not asked for."""
        return self._envelope.usage(usage)

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """Returns the answer of a request that does not stream."""
        return self._envelope.whole("chat.completion", [self._whole(choice) for choice in choices], usage)

    def _chunk(self, choice: Choice, delta: str, logprobs: str = "null", finish: str = "null") -> str:
        ending = f'"logprobs": {logprobs}, "finish_reason": {finish}'
        return self._envelope.chunk(f'{{"index": {choice.index}, "delta": {delta}, {ending}}}')

    def _whole(self, choice: Choice) -> dict[str, Any]:
        pieces = choice.text.take()
        message: dict[str, Any] = {"role": "assistant", "content": text_of(pieces), "refusal": None}
        if choice.parts is not None:
            if thoughts := choice.parts.take_thoughts():
                message["reasoning_content"] = thoughts
            if calls := whole_calls(choice.parts.take_calls()):
                message |= {"content": message["content"] or None, "tool_calls": calls}
        return {
            "index": choice.index,
            "finish_reason": choice.text.finish,
            "message": message,
            "logprobs": self._logprobs(choice, pieces),
        }

    def _logprobs(self, choice: Choice, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        return {"content": [self._token(choice, piece) for piece in pieces], "refusal": None}

    def _token(self, choice: Choice, piece: Piece) -> dict[str, Any]:
        token, share = piece.token, piece.share
        own = _told(choice.texts.name(token.token, share), share, token.logprob)
        others = [
            _told(*choice.texts.alternative(other, is_first=piece.number == 0), logprob)
            if other != token.token
            else own
            for other, logprob in token.top
        ]
        return {**own, "top_logprobs": others}


class TextWire:
    """Writes completions of texts."""

    def __init__(self, model: str, *, has_logprobs: bool, has_usage: bool) -> None:
        self._envelope = _Envelope("cmpl-", "text_completion", model, has_usage=has_usage)
        self._has_logprobs = has_logprobs

    def opening(self, choice: Choice) -> str:
        """Returns the prompt's echo, if there is one: a text has no other beginning."""
        if choice.echo is None:
            return ""
        return self._chunk(choice, choice.echo.text, self._echoed(choice))

    def piece(self, choice: Choice, pieces: Sequence[Piece]) -> str:
        """Returns the chunk of so much more text; nothing where there is nothing to tell."""
        text = text_of(pieces)
        if not text and not (self._has_logprobs and pieces):
            return ""
        return self._chunk(choice, text, self._logprobs(choice, pieces))

    def last(self, choice: Choice) -> str:
        """Returns the chunk that says why a choice has ended."""
        return self._chunk(choice, "", None, choice.text.finish)

    def usage(self, usage: Usage) -> str:
        """Returns the chunk that counts tokens; nothing where that was not asked for."""
        return self._envelope.usage(usage)

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """Returns the answer of a request that does not stream."""
        return self._envelope.whole("text_completion", [self._whole(choice) for choice in choices], usage)

    def _chunk(
        self, choice: Choice, text: str, logprobs: dict[str, Any] | None, finish: str | None = None
    ) -> str:
        return self._envelope.chunk(json.dumps(_text_choice(choice, text, logprobs, finish)))

    def _whole(self, choice: Choice) -> dict[str, Any]:
        pieces = choice.text.take()
        echo = choice.echo.text if choice.echo else ""
        echoed = self._echoed(choice)
        logprobs = self._logprobs(choice, pieces)
        if echoed is not None and logprobs is not None:
            logprobs = {key: echoed[key] + logprobs[key] for key in logprobs}
        return _text_choice(choice, echo + text_of(pieces), logprobs, choice.text.finish)

    def _echoed(self, choice: Choice) -> dict[str, Any] | None:
        if not self._has_logprobs or choice.echo is None:
            return None
        rows = [
            _row(choice, one, share)
            for one, share in zip(choice.echo.tokens, choice.echo.shares, strict=True)
        ]
        told = _legacy(choice, rows)
        choice.offset = len(choice.echo.text)
        return told

    def _logprobs(self, choice: Choice, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        return _legacy(choice, [_row(choice, piece.token, piece.share) for piece in pieces])


class _Row(NamedTuple):
    name: str
    share: bytes
    logprob: float | None
    top: dict[str, float] | None


def _legacy(choice: Choice, rows: Sequence[_Row]) -> dict[str, Any]:
    """Returns the logprobs of completions of texts; what comes before the first token has none."""
    offsets = []
    for row in rows:
        continues = row.share[:1] and (row.share[0] & 0xC0) == 0x80
        offsets.append(choice.offset - bool(continues))
        choice.offset += sum((byte & 0xC0) != 0x80 for byte in row.share)
    return {
        "tokens": [row.name for row in rows],
        "token_logprobs": [row.logprob for row in rows],
        "top_logprobs": [row.top for row in rows],
        "text_offset": offsets,
    }


def _row(choice: Choice, token: Token | PromptToken, share: bytes) -> _Row:
    """Returns a token by name, among its alternatives; of two with one name the likelier is told."""
    name = choice.texts.name(token.token, share)
    if token.logprob is None:
        return _Row(name, share, None, None)
    top: dict[str, float] = {}
    for other, logprob in token.top:
        known = name if other == token.token else choice.texts.alternative(other, is_first=False)[0]
        top.setdefault(known, _bounded(logprob))
    return _Row(name, share, _bounded(token.logprob), {**top, name: _bounded(token.logprob)})


def _text_choice(
    choice: Choice, text: str, logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"text": text, "index": choice.index, "logprobs": logprobs, "finish_reason": finish}


def _told(name: str, share: bytes, logprob: float) -> dict[str, Any]:
    return {"token": name, "logprob": _bounded(logprob), "bytes": list(share)}


def _bounded(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
