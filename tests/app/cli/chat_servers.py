"""A local server in OpenAI's shape, for `cherry chat`: it says what it was asked, piece by piece."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("small", "large")


class ChatServer(ThreadingHTTPServer):
    """Answers with its own name and the last question; to "wait" it begins and then waits to be left, and to
    "weather" it thinks and calls a tool."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name in MODELS:
            self._send(200, {"id": name, "object": "model", "created": 0, "owned_by": "system"})
        else:
            self._send(404, {"error": {"message": f"The model '{name}' does not exist.", "code": "x"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        question = body["messages"][-1]["content"]
        if question == "busy":
            self._send(400, {"error": {"message": "The model is busy.", "code": "busy"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if question == "weather":
            self._call()
            return self._end(body["model"], "tool_calls")
        words = [f"{body['model']}", " heard ", question]
        for word in words[:2] if question == "wait" else words:
            self._chunk({"content": word})
        if question == "wait":
            self._wait_until_left()
            return
        return self._end(body["model"], "stop")

    def _call(self) -> None:
        self._chunk({"reasoning_content": "Which"})
        self._chunk({"reasoning_content": " city?"})
        call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
        self._chunk({"tool_calls": [{"index": 0, **call}]})
        self._chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Oslo"}'}}]})

    def _end(self, model: str, finish: str) -> None:
        self._chunk({}, finish=finish)
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        self._event({**_head(model), "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _wait_until_left(self) -> None:
        try:
            while True:
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()
        except OSError:
            self.server.left.set()

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._event({**_head("m"), "choices": [choice]})

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _head(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
