"""Speaks to a vLLM server: token ids in and out, adapters by name, sleep, whole weights by file.

Seen: vLLM 0.32.0. Redirects are not followed, proxies not used, and the key, where there is one, is sent to
this server alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx2 as httpx

from app.table_settings import VllmEntry
from workers.rollouts.errors import RolloutsRefused, ServerAway

CONNECT_SECONDS = 5.0
SHORT_SECONDS = 60.0
"""How long a call that samples nothing may take. Chosen, not measured: adapters of a gigabyte load within
seconds, and a sleeping server copies its weights back."""
RELOAD_SECONDS = 600.0
"""How long the engines may take to load whole weights out of files. Chosen, not measured."""
MOST_SHOWN = 300
"""Characters of a server's own words that are passed on."""
ALREADY = "already been loaded"
"""What vLLM says of an adapter's name that it has: another process of this run was faster."""
TOO_HIGH = "max_lora_rank"
"""What it says of an adapter of a higher rank than it takes."""
ADAPTERS_OFF = (
    "The vLLM server at {url} loads no adapters: it must be started with --enable-lora and"
    " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True (docs/vllm.md)."
)
TOKENS_OFF = (
    "The vLLM server at {url} does not answer in token ids: it must be started with --enable-scale-out"
    " (docs/vllm.md)."
)
SLEEP_OFF = (
    "The vLLM server at {url} shares the trainer's GPU and cannot sleep: it must be started with"
    " --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1, reachable from this machine alone (docs/vllm.md)."
)
WEIGHTS_OFF = (
    "The vLLM server at {url} takes no whole weights: it must be started with VLLM_SERVER_DEV_MODE=1, and be"
    " reachable at a loopback address, from this machine alone (docs/vllm.md)."
)
LOADING = "being-loaded"
"""The version of weights that are not all there yet. No reply by them is used."""


class Asked(NamedTuple):
    """Is one completion that is asked for: what to read, and vLLM's sampling parameters."""

    tokens: Sequence[int]
    parameters: Mapping[str, Any]


class VllmClient:
    """One vLLM server. Each call raises `ServerAway` where it is away, or `RolloutsRefused`."""

    def __init__(self, entry: VllmEntry) -> None:
        self.url = entry.url.rstrip("/")
        self._entry = entry
        key = entry.key.get_secret_value() if entry.key else ""
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        # A context takes 20 ms to make, and each httpx client would make its own.
        self._verify: ssl.SSLContext | bool = (
            ssl.create_default_context() if self.url.startswith("https") else False
        )

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its address is a loopback address, which nobody else can reach."""
        return is_loopback(self.url)

    def version(self) -> str:
        """Returns the server's version."""
        return str(self._call("GET", "/version").get("version", ""))

    def models(self) -> list[Mapping[str, Any]]:
        """Returns what the server lists: base models and adapters (`parent`)."""
        return list(self._call("GET", "/v1/models").get("data", ()))

    def check_health(self) -> None:
        """Returns where server and engine are well."""
        self._call("GET", "/health")

    def load_adapter(self, name: str, folder: str) -> None:
        """Loads a LoRA adapter out of a folder that the server sees too; a name that it has is kept."""
        body = {"lora_name": name, "lora_path": folder}
        status, told = self._short("POST", "/v1/load_lora_adapter", body)
        if status == 200 or ALREADY in told:
            return
        if status == 404 and folder not in told and name not in told:
            raise RolloutsRefused(ADAPTERS_OFF.format(url=self.url))
        # vLLM 0.32 answers 500 to too high a rank, and 404 to an adapter that it does not find; it goes on.
        if TOO_HIGH not in told and status != 404:
            self._raise_for(status, told)
        raise RolloutsRefused(
            f"The vLLM server at {self.url} does not load the policy's adapter: {message_of(told)}"
            f" See that it reads {self._entry.adapters}, that its --max-lora-rank is at least the job's"
            " lora_rank, and that vLLM adapts this kind of model."
        )

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; one that it does not have is no fault."""
        status, told = self._short("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 400, 404):
            self._raise_for(status, told)

    def sleep(self) -> None:
        """Lets the server put its weights into the machine's memory and forget its cache (level 1)."""
        self._dev("POST", "/sleep?level=1")

    def wake_up(self) -> None:
        """Lets a server that sleeps wake up; any other stays as it is."""
        if self._dev("GET", "/is_sleeping").get("is_sleeping"):
            self._dev("POST", "/wake_up")

    def weight_version(self) -> str:
        """Returns the version that the server has of its base's weights; `ORIGINAL` when it has started."""
        return str(self._dev("GET", "/weight_info", off=WEIGHTS_OFF).get("weight_version"))

    def load_weights(self, folder: str, version: str) -> None:
        """Lets every engine load the base's weights out of a model folder, which replies then name.

        What is under way is aborted, and what was cached is forgotten. Weights that did not all arrive have
        the version `LOADING`.
        """
        self._set_version(LOADING)
        self._dev("POST", "/pause?mode=abort", off=WEIGHTS_OFF)
        try:
            if not self._dev("POST", "/reset_prefix_cache", off=WEIGHTS_OFF).get("success"):
                raise ServerAway("it does not forget what it has cached by earlier weights")
            call = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
            self._dev("POST", "/collective_rpc", call, off=WEIGHTS_OFF, seconds=RELOAD_SECONDS)
            self._set_version(version)
        finally:
            self._dev("POST", "/resume", off=WEIGHTS_OFF)

    def _set_version(self, version: str) -> None:
        self._dev("POST", "/update_weight_version", {"new_version": version}, off=WEIGHTS_OFF)

    def tokens_of(self, model: str, text: str) -> list[int]:
        """Returns a text's token ids by the server's tokenizer, without special tokens."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        status, told = self._short("POST", "/tokenize", body)
        self._raise_for(status, told)
        return list(_object(told).get("tokens", ()))

    def _dev(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        off: str = SLEEP_OFF,
        seconds: float = SHORT_SECONDS,
    ) -> Mapping[str, Any]:
        """Calls a route of the server's development mode, which users must never reach.

        `off` says what the server lacks where it has no such route, or another address than this machine's.
        """
        if not self.is_on_this_machine:
            raise RolloutsRefused(off.format(url=self.url))
        status, told = self._short(method, path, body, seconds)
        if status == 404:
            raise RolloutsRefused(off.format(url=self.url))
        self._raise_for(status, told)
        return _object(told) if told.strip() else {}

    def _call(self, method: str, path: str) -> Mapping[str, Any]:
        status, told = self._short(method, path)
        self._raise_for(status, told)
        return _object(told) if told.strip() else {}

    def _short(
        self, method: str, path: str, body: Any = None, seconds: float = SHORT_SECONDS
    ) -> tuple[int, str]:
        """Returns status and text of a call that samples nothing."""
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        try:
            with httpx.Client(
                timeout=timeout, headers=self._headers, trust_env=False, verify=self._verify
            ) as client:
                response = client.request(method, self.url + path, json=body)
                return response.status_code, response.text
        except httpx.HTTPError as problem:
            raise ServerAway(_words(problem)) from None

    def _raise_for(self, status: int, told: str) -> None:
        """Raises what a status other than 200 means."""
        if status == 200:
            return
        words = message_of(told)
        if status in (401, 403) and "scale-out" in words:
            raise RolloutsRefused(TOKENS_OFF.format(url=self.url))
        if status in (401, 403):
            raise RolloutsRefused(
                f"The vLLM server at {self.url} refuses the key that CHERRY_VLLM has for it ({status}):"
                f" {words}"
            )
        if 300 <= status < 400:
            raise RolloutsRefused(
                f"{self.url} answers with a redirect ({status}), which is not followed: name the vLLM server"
                " itself in CHERRY_VLLM."
            )
        if status == 404 or status == 429 or status >= 500:
            raise ServerAway(f"it answered {status}: {words}")
        raise RolloutsRefused(f"The vLLM server at {self.url} refuses a request ({status}): {words}")

    def requests(self, model: str) -> Requests:
        """Returns completions under way by a model or adapter: none at first."""
        entry = self._entry
        limits = httpx.Limits(max_connections=entry.concurrency)
        timeout = httpx.Timeout(entry.answer_seconds, connect=CONNECT_SECONDS, pool=None)
        connections = httpx.AsyncClient(
            timeout=timeout, limits=limits, headers=self._headers, trust_env=False, verify=self._verify
        )
        return Requests(self, connections, model, entry.answer_seconds)

    async def generate(self, connections: httpx.AsyncClient, model: str, one: Asked) -> Any:
        """Returns the server's reply to one request for tokens."""
        body = {
            "model": model,
            "token_ids": list(one.tokens),
            "sampling_params": dict(one.parameters),
            "stream": False,
        }
        try:
            response = await connections.post(f"{self.url}/inference/v1/generate", json=body)
        except httpx.HTTPError as problem:
            raise ServerAway(_words(problem)) from None
        if response.status_code == 404 and "does not exist" not in response.text:
            raise RolloutsRefused(TOKENS_OFF.format(url=self.url))
        self._raise_for(response.status_code, response.text)
        return _object(response.text)


class Requests:
    """Is what a server has been asked for and has not replied to yet. It is an async context manager.

    What is under way when it is left is cancelled, and the server told by closing its connection.
    """

    def __init__(
        self, client: VllmClient, connections: httpx.AsyncClient, model: str, patience: float
    ) -> None:
        """`patience` is after how many seconds without any reply the server counts as hung."""
        self._client = client
        self._connections = connections
        self._model = model
        self._patience = patience
        self._heard = 0.0
        self._under_way: dict[asyncio.Task[Any], int] = {}

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._connections.__aexit__(kind, value, trace)

    @property
    def are_open(self) -> bool:
        """Whether anything is under way."""
        return bool(self._under_way)

    def ask(self, number: int, one: Asked) -> None:
        """Asks for one more completion; its reply comes with the number."""
        if not self._under_way:
            self._heard = time.monotonic()
        task = asyncio.create_task(self._client.generate(self._connections, self._model, one))
        self._under_way[task] = number

    async def replies(self, seconds: float | None = None) -> list[tuple[int, Any]]:
        """Returns what has been replied since: at least one, or what has come after so many seconds.

        Raises `ServerAway` also where nothing has come for longer than the server may be silent.
        """
        left = self._heard + self._patience - time.monotonic()
        wait = left if seconds is None else min(seconds, left)
        done, _ = await asyncio.wait(
            self._under_way, timeout=max(wait, 0.0), return_when=asyncio.FIRST_COMPLETED
        )
        if done:
            self._heard = time.monotonic()
        elif time.monotonic() >= self._heard + self._patience:
            raise ServerAway(f"no completion has ended for {self._patience:.0f} seconds")
        return [(self._under_way.pop(task), task.result()) for task in done]


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by an address that nobody else can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def message_of(told: str) -> str:
    """Returns what a reply says of an error, in few words."""
    try:
        found = json.loads(told)
    except ValueError:
        return told[:MOST_SHOWN]
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else None
    return str(message or error)[:MOST_SHOWN]


def _object(told: str) -> Mapping[str, Any]:
    try:
        found = json.loads(told)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerAway(f"it answered with something else than a JSON object: {told[:MOST_SHOWN]!r}")
    return found


def _words(problem: httpx.HTTPError) -> str:
    return f"{type(problem).__name__}: {problem}".rstrip(": ")
