"""From a request that is right to the reply of the model that it names."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

from starlette.requests import Request

from app.auth import Caller
from app.db import on_lookup_thread, unit_of_work
from app.errors import DATABASE_AWAY, ApiError, Refusals, database_away
from app.http.transaction import state_of
from app.inference.backend import Asker, Endpoint, backend_of
from app.inference.reply import Reply
from app.models import service as models
from app.settings import get_settings

MAX_KNOWN = 10_000
"""Models that are remembered at a time. Chosen, not measured."""


class KnownModels:
    """Remembers models that were looked up a moment ago, as `app.auth.KnownKeys` does keys.

    A permission that is taken back counts at once all the same: whoever samples looks the model up again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], tuple[float, str]] = {}

    async def name(self, project_id: str, name: str, seconds: float) -> str:
        """Returns the name of the model that a project means. Raises `NotFound`."""
        looked_up_at, found = self._found.get((project_id, name), (-math.inf, ""))
        if self._clock() - looked_up_at < seconds:
            return found
        now = self._clock()
        found = await on_lookup_thread(_find, project_id, name)
        if len(self._found) >= MAX_KNOWN:
            self._found.clear()
        self._found[project_id, name] = now, found
        return found


known_models = KnownModels()


async def model_name(caller: Caller, name: str, refusals: Sequence[ApiError]) -> str:
    """Returns the name of the model that a caller means, which an alias stands for.

    Raises all refusals of the request together, that of a model that is not there among them.
    """
    found = Refusals()
    found.all += refusals
    name_of = ""
    with found:
        name_of = await known_models.name(caller.project_id, name, get_settings().key_cache.total_seconds())
    found.raise_any()
    return name_of


def refusals_of_model(caller: Caller, name: Any) -> list[ApiError]:
    """Returns what is wrong with the model that a malformed body names."""
    refusals = Refusals()
    if isinstance(name, str):
        with refusals:
            _find(caller.project_id, name)
    return refusals.all


def _find(project_id: str, name: str) -> str:
    with unit_of_work() as db:
        return models.get(db, project_id, name).name


async def ask(
    request: Request, caller: Caller, model: str, endpoint: Endpoint, body: dict[str, Any]
) -> Reply:
    """Asks a model's server. Raises an `ApiError` for whatever it says before the reply."""
    backend = backend_of(get_settings())
    return await backend.ask(Asker(caller, state_of(request.scope).request_id), model, endpoint, body)


async def count_tokens(request: Request, caller: Caller, model: str, body: dict[str, Any]) -> int:
    """Returns how many tokens a chat's messages are for a model, with its tools. Raises an `ApiError`."""
    backend = backend_of(get_settings())
    asker = Asker(caller, state_of(request.scope).request_id)
    return await backend.count_tokens(asker, model, body)


async def told_of_faults(
    events: AsyncIterator[bytes], told: Callable[[ApiError], bytes]
) -> AsyncGenerator[bytes]:
    """Yields events; a fault that comes after the first is told in an event, the last one."""
    try:
        async for event in events:
            yield event
    except ApiError as fault:
        yield told(fault)
    except DATABASE_AWAY as problem:
        yield told(database_away(problem))
