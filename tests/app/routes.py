"""The operations of the service, whether its document shows them or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy

from starlette.routing import BaseRoute, Mount, Route


def walk(found: Iterable[BaseRoute], prefix: str = "") -> Iterator[Route]:
    """Yields the routes of an app, with those of the routers that it includes, each with its whole path."""
    for route in found:
        if included := getattr(route, "original_router", None):
            yield from walk(included.routes, prefix + route.include_context.prefix)
        elif isinstance(route, Route):
            whole = copy(route) if prefix else route
            whole.path = prefix + route.path
            yield whole
        else:
            assert isinstance(route, Mount), route
            yield Route(route.path, lambda: None)
