"""An HTTP server that speaks chat completions, with one behaviour."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.judging.behaviours import Eye
from tests.judging.prompts import text_of
from tests.judging.replies import reply_to

CHARACTERS_OF_A_TOKEN = 4


class JudgeServer(ThreadingHTTPServer):
    """Answers `POST .../chat/completions` after a delay, and `GET /calls` with how often it was asked.

    Each model that is asked for is seen through an eye: that of its name, or else the one without a name.
    Connections end with each reply, so that a test leaves none behind, unless they are to be kept.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, port: int, eyes: Mapping[str, Eye], delay_seconds: float, *, keeps_alive: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", port), _KeptAlive if keeps_alive else _Handler)
        self.eyes = eyes
        self.delay_seconds = delay_seconds
        self.calls = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._send(200, {"calls": self.server.calls})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.server.delay_seconds)
        with self.server.lock:  # one luck for all threads
            self.server.calls += 1
            eye = self.server.eyes.get(body["model"], self.server.eyes[""])
            eye.turn_to(text_of(body["messages"]))
            fails = eye.fails()
            content = "" if fails else reply_to(eye, body)
        if fails:
            self._send(500, {"error": {"message": "The model is overloaded.", "type": "server_error"}})
        else:
            self._send(200, _completion(body, content))

    def log_message(self, *_: Any) -> None:
        """Says nothing: a test reads what it printed at its start."""

    def _send(self, status: int, body: dict[str, Any]) -> None:
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


class _KeptAlive(_Handler):
    protocol_version = "HTTP/1.1"


def _completion(body: dict[str, Any], content: str) -> dict[str, Any]:
    read = len(text_of(body["messages"])) // CHARACTERS_OF_A_TOKEN
    wrote = len(content) // CHARACTERS_OF_A_TOKEN
    return {
        "id": "chatcmpl-judge",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote},
    }
