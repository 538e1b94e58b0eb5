"""A stand-in for a server of models that is not ours: a vLLM server, or a sampler in trouble."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

WORDS = ("Once", " upon", " a", " time")


DIED = b'data: {"error": {"message": "The engine died.", "type": "server_error", "code": 500}}\n\n'


class ModelServer:
    """Answers every prompt with the same words. What it was asked is in `asked`."""

    def __init__(self, kind: str = "sampler", *, base: str = "cherry-nano", root: str = "") -> None:
        self.kind = kind
        self.base = {"id": base, "object": "model", "root": root, "parent": None}
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.adapters: dict[str, str] = {}
        self.calls: list[str] = []
        """Loads and unloads of adapters, in order."""
        self.words: tuple[str, ...] = WORDS
        self.deltas: tuple[dict[str, Any], ...] = ()
        """What chats are told in the place of words, if anything."""
        self.finish_reason = "stop"
        self.thought_tokens = 0
        self.refusal: tuple[int, dict[str, Any], dict[str, str]] | None = None
        """Status, error and headers of every reply, if it refuses."""
        self.breaks_after: int | None = None
        """Words after which the connection is cut."""
        self.fails_after: int | None = None
        """Words after which an error is told."""
        self.is_endless = False
        self.left = threading.Event()
        """Set once a client has left before its stream's end."""

    def app(self) -> Starlette:
        routes = [
            Route("/{path:path}", self._answer, methods=["GET", "POST"]),
        ]
        return Starlette(routes=routes)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        is_vllm = self.kind == "vllm"
        if path == "/healthz" and self.kind == "sampler":
            return JSONResponse({"status": "ok", "sampler": "cherry"})
        if path == "/version" and is_vllm:
            return JSONResponse({"version": "0.32.0"})
        if path == "/v1/models" and is_vllm:
            lora = [{"id": name, "parent": self.base["id"]} for name in self.adapters]
            return JSONResponse({"object": "list", "data": [self.base, *lora]})
        body = json.loads(await request.body() or b"{}")
        if path == "/v1/load_lora_adapter" and is_vllm:
            return self._load(body)
        if path == "/v1/unload_lora_adapter" and is_vllm:
            self.calls.append(f"unload {body['lora_name']}")
            known = self.adapters.pop(body["lora_name"], None)
            return Response("ok") if known else JSONResponse({"error": {"message": "not found"}}, 404)
        if path.endswith("/tokenize"):
            return JSONResponse({"count": len(json.dumps(body["messages"]))})
        if path.endswith("/completions"):
            return await self._complete(request, body)
        return JSONResponse({"detail": "Not Found"}, 404)

    def _load(self, body: dict[str, Any]) -> Response:
        if body["lora_name"] in self.adapters:
            told = f"The lora adapter '{body['lora_name']}' has already been loaded."
            return JSONResponse({"error": {"message": told}}, 400)
        self.adapters[body["lora_name"]] = body["lora_path"]
        self.calls.append(f"load {body['lora_name']}")
        return Response("ok")

    async def _complete(self, request: Request, body: dict[str, Any]) -> Response:
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        if self.refusal:
            status, error, headers = self.refusal
            return JSONResponse({"error": error}, status, headers)
        if self.kind == "vllm" and body["model"] not in (self.base["id"], *self.adapters):
            told = {"message": "The model does not exist.", "type": "NotFoundError", "param": "model"}
            return JSONResponse({"error": {**told, "code": 404}}, 404)
        return StreamingResponse(self._chunks(request, body), media_type="text/event-stream")

    async def _chunks(self, request: Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        is_chat = "messages" in body
        ended = False
        try:
            for index in range(body.get("n", 1)):
                if is_chat:
                    yield chunk(choice(index, {"role": "assistant", "content": ""}))
                for delta in self.deltas if is_chat else ():
                    yield chunk(choice(index, delta))
                for number, word in enumerate(() if self.deltas and is_chat else self.words):
                    if number == self.fails_after:
                        yield DIED
                        return
                    if number == self.breaks_after:
                        raise RuntimeError("cut")
                    yield chunk(said(index, word, is_chat, body.get("logprobs")))
            while self.is_endless:
                await asyncio.sleep(0.01)
                yield chunk(said(0, " and", is_chat, None))
            for index in range(body.get("n", 1)):
                reason = self.finish_reason
                yield chunk(choice(index, {}, reason) if is_chat else said(index, "", False, None, reason))
            usage: dict[str, Any] = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
            if self.thought_tokens:
                usage["completion_tokens_details"] = {"reasoning_tokens": self.thought_tokens}
            yield chunk(None, usage)
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            if not ended:
                self.left.set()


def said(index: int, word: str, is_chat: bool, logprobs: Any, finish: str | None = None) -> dict[str, Any]:
    if is_chat:
        token = {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []}
        told = {"content": [token]} if logprobs else None
        return {**choice(index, {"content": word}, finish), "logprobs": told}
    told = {"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": [None], "text_offset": [0]}
    told = told if logprobs is not None and word else None
    return {"index": index, "text": word, "logprobs": told, "finish_reason": finish, "stop_reason": None}


def choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}


def chunk(choice: dict[str, Any] | None, usage: dict[str, Any] | None = None) -> bytes:
    told = {"id": "theirs", "object": "x", "created": 1, "model": "theirs", "usage": usage}
    return b"data: " + json.dumps({**told, "choices": [choice] if choice else []}).encode() + b"\n\n"


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serves an application on a thread; its URL."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
