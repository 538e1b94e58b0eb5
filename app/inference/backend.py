"""The server behind inference: this service's sampler or a vLLM server, told apart by asking it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import structlog
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.db import unit_of_work
from app.errors import Unavailable
from app.inference.connection import ConnectionFailed, HttpResponse, request
from app.inference.reply import UNAVAILABLE, Reply, broke_off, error_of
from app.inference.vllm import COUNTED_BY_VLLM, Vllm, Wanted, as_vllm_has_it, wanted
from app.models import service as models
from app.settings import Settings

log = structlog.get_logger(__name__)

Endpoint = Literal["chat/completions", "completions"]
NO_SAMPLER = (
    "This service runs no models. Its operator starts a sampler (`cherry up` does, unless CHERRY_SAMPLER is"
    " false; or `cherry sampler`) and sets CHERRY_SAMPLER_URL and CHERRY_SAMPLER_TOKEN."
)
AWAY = (
    "The sampler does not answer at the moment. Try again in a few seconds. If it stays so, whoever runs the"
    " service looks whether the process at CHERRY_SAMPLER_URL runs."
)
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


class Asker(NamedTuple):
    """Who asks, and in which request."""

    caller: Caller
    request_id: str


class Place(NamedTuple):
    """Where a model is asked, and by which name."""

    path: str
    model: str


class Backend:
    """One server. Its kind is found out with the first question, and again after it was away."""

    def __init__(self, url: str, token: str, most_adapters: int) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._most_adapters = most_adapters
        self._is_known = False
        self._vllm: Vllm | None = None

    async def ask(self, asker: Asker, model: str, endpoint: Endpoint, body: Mapping[str, Any]) -> Reply:
        """Asks a model that the caller may use. Raises an `ApiError` for whatever comes before the reply."""
        place = await self._place(asker.caller.project_id, model)
        asked = {**(body if self._vllm is None else as_vllm_has_it(body)), **STREAMED, "model": place.model}
        response = await self._post(asker, f"{place.path}/{endpoint}", asked)
        if (
            response.status == 404 and self._vllm is not None
        ):  # another process has made room for its adapters
            response.close()
            self._vllm.forget(place.model)
            place = await self._place(asker.caller.project_id, model)
            response = await self._post(asker, f"{place.path}/{endpoint}", asked)
        if response.status != 200:
            raise await _refusal(response)
        return Reply(response, model)

    async def count_tokens(self, asker: Asker, model: str, body: Mapping[str, Any]) -> int:
        """Returns how many tokens a chat's messages are for a model. Raises an `ApiError`."""
        place = await self._place(asker.caller.project_id, model)
        path, asked = f"{place.path}/tokenize", {**body, "model": place.model}
        if self._vllm is not None:
            path, asked = "/tokenize", {name: asked[name] for name in COUNTED_BY_VLLM if name in asked}
        response = await self._post(asker, path, asked)
        if response.status != 200:
            raise await _refusal(response)
        try:
            return int(json.loads(await response.whole())["count"])
        except ConnectionFailed:
            raise broke_off() from None
        finally:
            response.close()

    async def _place(self, project_id: str, model: str) -> Place:
        """Raises an `ApiError` where the server is away or cannot serve the model."""
        if not self._is_known:
            await self._find_out()
        if self._vllm is None:
            return Place(f"/projects/{quote(project_id, safe='')}/v1", model)
        wanted = await run_in_threadpool(_wanted, project_id, model)
        return Place("/v1", await self._vllm.name_of(wanted))

    async def _find_out(self) -> None:
        health = await self._get_json("/healthz")
        if health is not None and health.get("status") == "ok":
            self._vllm = None
        elif (version := await self._get_json("/version")) is not None and "version" in version:
            self._vllm = Vllm(self.url, self._headers(), self._most_adapters)
            log.info("sampler_is_vllm", version=version["version"])
        else:
            raise Unavailable(
                "What listens at CHERRY_SAMPLER_URL is neither a sampler of this service nor a vLLM server."
                " Whoever runs the service sets it right.",
                code=UNAVAILABLE,
                headers={"x-should-retry": "false"},
            )
        self._is_known = True

    async def _get_json(self, path: str) -> dict[str, Any] | None:
        try:
            response = await request("GET", self.url + path, self._headers())
            content = await _content(response)
            return json.loads(content) if response.status == 200 else None
        except ConnectionFailed as problem:
            raise self._away(problem) from None
        except ValueError:
            return None

    async def _post(self, asker: Asker, path: str, body: Mapping[str, Any]) -> HttpResponse:
        headers = {
            **self._headers(),
            "content-type": "application/json",
            "x-cherry-key": asker.caller.key_id,
            "x-request-id": asker.request_id,
        }
        try:
            return await request("POST", self.url + path, headers, json.dumps(body).encode())
        except ConnectionFailed as problem:
            raise self._away(problem) from None

    def _away(self, problem: ConnectionFailed) -> Unavailable:
        self._is_known = False
        log.warning("sampler_away", problem=str(problem))
        return Unavailable(AWAY, code=UNAVAILABLE, headers={"retry-after": "2"})

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}


def backend_of(settings: Settings) -> Backend:
    """Returns the server that the settings name. Raises `Unavailable` if they name none."""
    if not settings.sampler_url:
        raise Unavailable(NO_SAMPLER, code=UNAVAILABLE, headers={"x-should-retry": "false"})
    return _backend(
        settings.sampler_url, settings.sampler_token.get_secret_value(), settings.sampler_adapters
    )


@lru_cache(maxsize=4)
def _backend(url: str, token: str, most_adapters: int) -> Backend:
    return Backend(url, token, most_adapters)


async def _refusal(response: HttpResponse) -> Exception:
    """Returns what a client is told of a response that is none."""
    try:
        told = json.loads(await _content(response))
    except ValueError:
        told = None
    if response.status in (401, 403):
        log.error("sampler_refuses_token", status=response.status)
        message = (
            "The sampler does not take this service's token; whoever runs it sets CHERRY_SAMPLER_TOKEN alike."
        )
        return Unavailable(message, code=UNAVAILABLE, headers={"x-should-retry": "false"})
    error = told.get("error", told) if isinstance(told, dict) else {}
    return error_of(
        response.status, error if isinstance(error, dict) else {"message": str(error)}, response.headers
    )


async def _content(response: HttpResponse) -> bytes:
    try:
        return await response.whole()
    except ConnectionFailed:
        return b""
    finally:
        response.close()


def _wanted(project_id: str, name: str) -> Wanted:
    with unit_of_work() as db:
        return wanted(db, project_id, models.get(db, project_id, name))
