"""The operations of the service, whether its document shows them or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Mount, Route


def walk(found: Iterable[BaseRoute]) -> Iterator[Route]:
    """Yields the routes of an app, with those of the routers that it includes."""
    for route in found:
        if included := getattr(route, "original_router", None):
            yield from walk(included.routes)
        elif isinstance(route, Route):
            yield route
        else:
            assert isinstance(route, Mount), route
            yield Route(route.path, lambda: None)
