"""A local HTTP server that speaks the routes of vLLM which rollouts use, and can be made to fail.

What it writes has no model: tokens follow from the seed, and log-probabilities from the token. What it
replies to a probe is that of `logits`, or of the whole weights that it was given.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

MODEL = "tiny"
LONGEST = 4096

Fault = Callable[[dict[str, Any]], Any]
"""Changes the reply to a request for tokens. An `int` is a status, and `CUT` an answer that breaks off."""
CUT = "cut"
Logits = Callable[[list[int]], Sequence[float]]
"""The (V,) logits of what follows tokens."""


def logits_of(model: Any) -> Logits:
    """Those of a causal model."""

    import torch  # the tests of the app do without

    @torch.inference_mode()
    def found(tokens: list[int]) -> Sequence[float]:
        last: list[float] = model(input_ids=torch.tensor([tokens])).logits[0, -1].float().tolist()
        return last

    return found


class FakeVllm(ThreadingHTTPServer):
    """What was asked of it is in `asked`, and what it has loaded in `loaded`."""

    daemon_threads = True

    def __init__(self, vocabulary: int, logits: Logits | None = None, root: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.vocabulary = vocabulary
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.loaded: dict[str, Path] = {}
        self.asked: list[tuple[str, Any]] = []
        self.faults: list[Fault] = []
        """Each is used for one reply; then the next."""
        self.is_raw = False
        self.is_asleep = False
        self.most_rank = 64
        self.key = ""
        self.root = root
        self.logits = logits or (lambda _: range(0, -vocabulary, -1))
        self.version = "default"
        self.is_paused = False
        self.tokenizer: Any = None
        self.lock = threading.Lock()

    def of(self, path: str) -> list[Any]:
        """The bodies that came to a path, in order."""
        return [body for asked, body in self.asked if asked == path]

    def reply(self, body: dict[str, Any]) -> Any:
        """A reply to a request for tokens, or a fault."""
        chosen = body["sampling_params"]
        draw, most = Random(chosen.get("seed", 0)), chosen["max_tokens"]
        tokens = [draw.randrange(self.vocabulary) for _ in range(most)]
        ends = [i for i, token in enumerate(tokens) if token in chosen.get("stop_token_ids", ())]
        tokens = tokens[: ends[0] + 1] if ends else tokens
        top = self._top(body) if chosen["logprobs"] else []
        content = [{"token_id": t, "logprob": -1.0 - t % 7 / 10, "top_logprobs": top} for t in tokens]
        reply: Any = {
            "model": body["model"],
            "choices": [
                {
                    "token_ids": tokens,
                    "finish_reason": "stop" if ends else "length",
                    "weight_versions": [{"version": self.version, "start": 0, "end": len(tokens)}],
                    "logprobs": {"content": content},
                }
            ],
        }
        if chosen["logprobs"]:  # the probe
            return reply
        with self.lock:
            fault = self.faults.pop(0) if self.faults else None
        return reply if fault is None else fault(reply)

    def _top(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Log-probabilities of the likeliest token and of the least likely ones, which are far from it."""
        heat = 1.0 if self.is_raw else body["sampling_params"]["temperature"]
        warm = [value / heat for value in self.logits(body["token_ids"])]
        total = math.log(sum(map(math.exp, warm)))
        order = sorted(range(len(warm)), key=lambda token: -warm[token])
        chosen = [order[0], *order[1 - body["sampling_params"]["logprobs"] :]]
        return [{"token_id": token, "logprob": warm[token] - total} for token in chosen]

    def load_weights(self, folder: str) -> None:
        """Takes whole weights out of a model folder, as `reload_weights` does."""
        import torch
        from transformers import AutoModelForCausalLM

        self.logits = logits_of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


class _Handler(BaseHTTPRequestHandler):
    server: FakeVllm
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.key and self.headers.get("authorization") != f"Bearer {self.server.key}":
            self._answer(401, {"error": "Unauthorized"})
            return
        base = {"id": MODEL, "parent": None, "max_model_len": LONGEST, "root": self.server.root}
        adapters = [{"id": name, "parent": MODEL} for name in self.server.loaded]
        found: dict[str, Any] = {
            "/health": {},
            "/version": {"version": "0.32.0"},
            "/v1/models": {"data": [base, *adapters]},
            "/is_sleeping": {"is_sleeping": self.server.is_asleep},
            "/weight_info": {"weight_version": self.server.version},
        }
        self._answer(200, found[self.path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
        path = urlsplit(self.path).path
        self.server.asked.append((path, body))
        if self.server.key and self.headers.get("authorization") != f"Bearer {self.server.key}":
            self._answer(401, {"error": "Unauthorized"})
        elif path == "/inference/v1/generate":
            self._generate(body)
        elif path == "/v1/load_lora_adapter":
            self._load(body)
        elif path == "/v1/unload_lora_adapter":
            known = self.server.loaded.pop(body["lora_name"], None)
            self._answer(200 if known else 404, {})
        elif path == "/tokenize":
            self._answer(200, {"tokens": self.server.tokenizer(body["prompt"])["input_ids"]})
        elif path == "/collective_rpc":
            assert self.server.is_paused
            self.server.load_weights(body["kwargs"]["weights_path"])
            self._answer(200, {"results": [None]})
        elif path == "/update_weight_version":
            self.server.version = body["new_version"]
            self._answer(200, {"success": True})
        elif path in ("/pause", "/resume"):
            self.server.is_paused = path == "/pause"
            self._answer(200, {})
        else:
            self.server.is_asleep = path == "/sleep"
            self._answer(200, {"success": True})

    def _load(self, body: dict[str, Any]) -> None:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.server.loaded:
            self._answer(400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}})
        elif not folder.is_dir():
            words = f"Loading lora {name} failed: No adapter found for <path>"
            self._answer(404, {"error": {"message": words}})
        elif json.loads((folder / "adapter_config.json").read_text())["r"] > self.server.most_rank:
            words = f"LoRA rank is greater than max_lora_rank {self.server.most_rank}."
            self._answer(500, {"error": {"message": f"Call to add_lora method failed: {words}"}})
        else:
            self.server.loaded[name] = folder
            self._answer(200, {})

    def _generate(self, body: dict[str, Any]) -> None:
        if body["model"] not in {MODEL, *self.server.loaded}:
            self._answer(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        reply = self.server.reply(body)
        if isinstance(reply, int):
            self._answer(reply, {"error": {"message": "EngineCore encountered an issue."}})
        else:
            self._answer(200, reply)

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content) + (body == CUT) * 100))
        self.end_headers()
        self.wfile.write(content)
        if body == CUT:
            self.close_connection = True


@contextmanager
def running(server: FakeVllm) -> Iterator[FakeVllm]:
    """The server, answering until it is left."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
