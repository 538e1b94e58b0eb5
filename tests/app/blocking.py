"""The official asynchronous client, used like the synchronous one: what a test says runs in both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from anyio.from_thread import BlockingPortal
from openai._base_client import AsyncPaginator, BaseAsyncPage
from openai._resource import AsyncAPIResource


class Blocking:
    """Wraps the client, one of its resources, or a page: calls wait for their result."""

    def __init__(self, target: Any, portal: BlockingPortal) -> None:
        self._target = target
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        return self._wrapped(getattr(self._target, name))

    def __iter__(self) -> Iterator[Any]:
        """All items of a page and of those that follow."""

        async def collect() -> list[Any]:
            return [item async for item in self._target]

        return iter(self._portal.call(collect))

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, (AsyncPaginator, BaseAsyncPage)) or inspect.isawaitable(value):
            return self._waited_for(value)
        if isinstance(value, AsyncAPIResource) or type(value).__name__.endswith("WithRawResponse"):
            return Blocking(value, self._portal)
        if inspect.ismethod(value) or inspect.isfunction(value):
            return lambda *args, **kwargs: self._wrapped(value(*args, **kwargs))
        return value

    def _waited_for(self, value: Any) -> Any:
        if isinstance(value, BaseAsyncPage):
            return Blocking(value, self._portal)

        async def wait() -> Any:
            return await value

        return self._wrapped(self._portal.call(wait))
