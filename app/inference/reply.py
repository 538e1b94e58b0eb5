"""What a model's server says, whichever it is, in one form: pieces of text, and in the end what was used."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from app.errors import ApiError, BadRequest, NotFound, RateLimited, ServerError, TooManyRequests, Unavailable
from app.inference.connection import ConnectionFailed, HttpResponse
from app.inference.events import DONE, EventReader

log = structlog.get_logger(__name__)

THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a thought in a reply: ours and older servers' name for it, and vLLM's."""
Form = str
"""`chat.completions` or `completions`: which of OpenAI's endpoints was asked."""
KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
UNAVAILABLE = "sampler_unavailable"
"""The code of every 503 that is about the sampler."""
BROKE = "The sampler broke off in the middle of the completion. Send the request again."
CODES = {
    400: "invalid_value",
    413: "invalid_value",
    422: "invalid_value",
    404: "model_not_found",
    503: UNAVAILABLE,
}
"""What an error is called whose server gives it no code that is a text."""


class CallPiece(NamedTuple):
    """The next piece of a tool call. Its first says which call it is, and of which function."""

    number: int
    id: str | None
    name: str | None
    arguments: str


class Piece(NamedTuple):
    """The next piece of one choice. `logprobs` has the form of the endpoint that was asked."""

    choice: int
    text: str
    logprobs: Any
    finish_reason: str | None
    thoughts: str = ""
    calls: tuple[CallPiece, ...] = ()


class Usage(NamedTuple):
    """The tokens of one request."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Reply:
    """A reply on its way. What it took is logged, never what was said."""

    def __init__(self, response: HttpResponse, model: str) -> None:
        self._response = response
        self._model = model
        self._started = time.perf_counter()
        self._first: float | None = None
        self._is_whole = False
        self._is_closed = False
        self._reader = EventReader()
        self._fault: ApiError | None = None
        self.usage = Usage()
        """What was used; known once all pieces have come."""

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Yields what has come together, until the end. Raises an `ApiError`."""
        try:
            while received := await self._response.read():
                pieces, is_over = self._read(self._reader.feed(received))
                self._is_whole = is_over
                if pieces:
                    self._first = self._first or self._milliseconds()
                    yield pieces
                if self._fault is not None:
                    raise self._fault
                if is_over:
                    return
        except ConnectionFailed as problem:
            log.warning("sampler_broke_off", problem=str(problem))
        finally:
            self.close()
        raise broke_off()

    def close(self) -> None:
        """Ends the request over there, if it has not ended."""
        if self._is_closed:
            return
        self._is_closed = True
        self._response.close()
        log.info(
            "sampled",
            model=self._model,
            is_whole=self._is_whole,
            prompt_tokens=self.usage.prompt,
            cached_tokens=self.usage.cached,
            completion_tokens=self.usage.completion,
            first_milliseconds=self._first,
            milliseconds=self._milliseconds(),
        )

    def _milliseconds(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 1)

    def _read(self, events: Sequence[str]) -> tuple[list[Piece], bool]:
        """Returns the pieces that events hold, up to a fault, and whether they were the last."""
        pieces: list[Piece] = []
        for data in events:
            if data == DONE:
                return pieces, True
            chunk = json.loads(data)
            if error := chunk.get("error"):
                self._fault = error_of(_status(error), error, {})
                break
            if usage := chunk.get("usage"):
                self.usage = _usage(usage)
            pieces += [_piece(choice) for choice in chunk.get("choices") or ()]
        return pieces, False


class Call(NamedTuple):
    """One whole tool call; its arguments are JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str

    @property
    def chat_form(self) -> dict[str, Any]:
        """Returns the call as messages of chats have it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class Choice(NamedTuple):
    """One whole choice. `text` is the answer alone."""

    text: str
    logprobs: list[Any]
    finish_reason: str
    thoughts: str = ""
    calls: tuple[Call, ...] = ()


async def whole(reply: Reply) -> list[Choice]:
    """Returns the choices of a reply, in order, once all has come. Raises an `ApiError`."""
    gathered = Gathered()
    async for pieces in reply.pieces():
        gathered.add(pieces)
    return gathered.choices()


class Gathered:
    """Puts pieces together."""

    def __init__(self) -> None:
        self._choices: dict[int, _Growing] = {}

    def add(self, pieces: Sequence[Piece]) -> None:
        """Takes the next pieces."""
        for piece in pieces:
            self._choices.setdefault(piece.choice, _Growing()).add(piece)

    def choices(self) -> list[Choice]:
        """Returns what has come of each choice. One that was not finished counts as cut."""
        return [growing.choice() for _, growing in sorted(self._choices.items())]


class _Growing:
    """Is a choice that pieces are added to."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: dict[int, Call] = {}
        self._finish_reason = "length"

    def add(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        self._thoughts.append(piece.thoughts)
        if piece.logprobs is not None:
            self._logprobs.append(piece.logprobs)
        for call in piece.calls:
            known = self._calls.get(call.number, Call("", "", ""))
            self._calls[call.number] = Call(
                known.id or call.id or "", known.name or call.name or "", known.arguments + call.arguments
            )
        self._finish_reason = piece.finish_reason or self._finish_reason

    def choice(self) -> Choice:
        calls = tuple(call for _, call in sorted(self._calls.items()))
        return Choice(
            "".join(self._texts), self._logprobs, self._finish_reason, "".join(self._thoughts), calls
        )


def broke_off() -> Unavailable:
    """Returns what a client is told where a reply ended too early: sending the request again is right."""
    return Unavailable(BROKE, code=UNAVAILABLE, headers={"retry-after": "2"})


def error_of(status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> ApiError:
    """Returns what a client is told of an error of the server's."""
    message, param, code = str(error.get("message") or ""), error.get("param"), error.get("code")
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    code = code if isinstance(code, str) else CODES.get(status)
    param = param if isinstance(param, str) else None
    kind: type[ApiError]
    kinds: dict[int, type[ApiError]] = {
        400: BadRequest,
        404: NotFound,
        413: BadRequest,
        422: BadRequest,
        503: Unavailable,
    }
    if status == 429:
        kind = RateLimited if error.get("type") == RateLimited.type else TooManyRequests
    elif status in kinds:
        kind = kinds[status]
    else:
        log.error("sampler_failed", status=status, code=code)  # its message may hold what was asked
        return ServerError("The sampler had an error while it carried this out; its log says why.")
    told = kind(message, param=param, code=code, headers=kept)
    told.others = tuple(
        kind(str(one.get("message")), param=one.get("param"), code=one.get("code"))
        for one in (error.get("errors") or ())[1:]
    )
    return told


def _status(error: Mapping[str, Any]) -> int:
    """Returns the status that an error in a stream would have had: vLLM says it as its code."""
    code = error.get("code")
    if isinstance(code, int):
        return code
    statuses = {Unavailable.type: 503, RateLimited.type: 429, BadRequest.type: 400}
    return statuses.get(str(error.get("type")), 500)


def _piece(choice: Mapping[str, Any]) -> Piece:
    """Reads a choice of a chunk of either endpoint; a whole `message` is taken too."""
    finish_reason = choice.get("finish_reason")
    if "text" in choice:
        logprobs = _text_logprobs(choice.get("logprobs"))
        return Piece(choice["index"], choice["text"] or "", logprobs or None, finish_reason)
    delta, told = choice.get("delta") or {}, choice.get("logprobs")
    return Piece(
        choice["index"],
        delta.get("content") or "",
        (told.get("content") if told else None) or None,
        finish_reason,
        next((found for name in THOUGHTS if (found := delta.get(name))), ""),
        tuple(map(_call_piece, delta.get("tool_calls") or ())),
    )


def _call_piece(told: Mapping[str, Any]) -> CallPiece:
    function = told.get("function") or {}
    return CallPiece(told["index"], told.get("id"), function.get("name"), function.get("arguments") or "")


def _text_logprobs(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns log probabilities of a text, of which OpenAI's document lets none be null.

    An echoed prompt's first token has none: 0 adds nothing to a sum.
    """
    if not told or not told.get("tokens"):
        return None
    return {
        "tokens": told["tokens"],
        "token_logprobs": [0.0 if value is None else value for value in told["token_logprobs"]],
        "top_logprobs": [one or {} for one in told.get("top_logprobs") or [{}] * len(told["tokens"])],
        "text_offset": told["text_offset"],
    }


def _usage(told: Mapping[str, Any]) -> Usage:
    of_prompt = told.get("prompt_tokens_details") or {}
    of_completion = told.get("completion_tokens_details") or {}
    return Usage(
        told.get("prompt_tokens") or 0,
        told.get("completion_tokens") or 0,
        of_prompt.get("cached_tokens") or 0,
        of_completion.get("reasoning_tokens") or 0,
    )
