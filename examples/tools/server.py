"""A tool server: `python -m examples.tools.server --port 8123`. It knows the prices of a shop.

One POST is one call, in the form that Azure's tool servers take; the answer is text for the model.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PRICES: dict[str, int] = json.loads((Path(__file__).parent / "prices.json").read_text())


def get_price(item: str) -> str:
    """What the model reads."""
    return str(PRICES[item]) if item in PRICES else "not found"


class Tools(BaseHTTPRequestHandler):
    """Answers calls of get_price."""

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"type": "function_call_output", "call_id": call["call_id"], "id": call["id"]}, call)

    def answer(self, reply: dict[str, Any], call: dict[str, Any]) -> None:
        """Sends the output of one call."""
        arguments = json.loads(call["arguments"])
        body = json.dumps({**reply, "output": get_price(str(arguments.get("item")))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of each call."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Tools).serve_forever()
