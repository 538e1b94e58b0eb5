"""Speaks to a vLLM server: token ids in and out, adapters by name, sleep.

Seen: vLLM 0.32.0. Redirects are not followed, proxies not used, and the key, where there is one, is sent to
this server alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2 as httpx

from app.table_settings import VllmEntry
from workers.rollouts.errors import RolloutsRefused, ServerAway

CONNECT_SECONDS = 5.0
SHORT_SECONDS = 60.0
"""How long a call that samples nothing may take. Chosen, not measured: adapters of a gigabyte load within
seconds, and a sleeping server copies its weights back."""
MOST_SHOWN = 300
"""Characters of a server's own words that are passed on."""
ALREADY = "already been loaded"
"""What vLLM says of an adapter's name that it has: another process of this run was faster."""
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
        self._raise_for(status, told)
        raise RolloutsRefused(
            f"The vLLM server at {self.url} does not load the policy's adapter: {told}. See that it reads"
            f" {self._entry.adapters}, that its --max-lora-rank is at least the job's lora_rank, and that"
            " vLLM adapts this kind of model."
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

    def _dev(self, method: str, path: str) -> Mapping[str, Any]:
        """Calls a route of the server's development mode, which users must never reach."""
        if not self.is_on_this_machine:
            raise RolloutsRefused(SLEEP_OFF.format(url=self.url))
        status, told = self._short(method, path)
        if status == 404:
            raise RolloutsRefused(SLEEP_OFF.format(url=self.url))
        self._raise_for(status, told)
        return _object(told)

    def _call(self, method: str, path: str) -> Mapping[str, Any]:
        status, told = self._short(method, path)
        self._raise_for(status, told)
        return _object(told) if told.strip() else {}

    def _short(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Returns status and text of a call that samples nothing."""
        timeout = httpx.Timeout(SHORT_SECONDS, connect=CONNECT_SECONDS)
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

    async def generate(self, model: str, asked: Sequence[Asked]) -> AsyncGenerator[tuple[int, Any]]:
        """Yields (number of the request, the server's reply) for each, as they come.

        What is under way when it is left is cancelled, and the server told by closing its connection.
        """
        patience = self._entry.answer_seconds
        limits = httpx.Limits(max_connections=self._entry.concurrency)
        timeout = httpx.Timeout(patience, connect=CONNECT_SECONDS, pool=None)
        async with httpx.AsyncClient(
            timeout=timeout, limits=limits, headers=self._headers, trust_env=False, verify=self._verify
        ) as client:
            tasks = {
                asyncio.create_task(self._generate(client, model, one)): number
                for number, one in enumerate(asked)
            }
            pending = set(tasks)
            try:
                while pending:
                    done, pending = await asyncio.wait(
                        pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not done:
                        raise ServerAway(f"no completion has ended for {patience:.0f} seconds")
                    for task in done:
                        yield tasks[task], task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _generate(self, client: httpx.AsyncClient, model: str, one: Asked) -> Any:
        body = {
            "model": model,
            "token_ids": list(one.tokens),
            "sampling_params": dict(one.parameters),
            "stream": False,
        }
        try:
            response = await client.post(f"{self.url}/inference/v1/generate", json=body)
        except httpx.HTTPError as problem:
            raise ServerAway(_words(problem)) from None
        if response.status_code == 404 and "does not exist" not in response.text:
            raise RolloutsRefused(TOKENS_OFF.format(url=self.url))
        self._raise_for(response.status_code, response.text)
        return _object(response.text)


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
