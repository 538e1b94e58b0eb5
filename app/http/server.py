"""The HTTP server: uvicorn, which lets streams end before it waits for connections to close."""

from __future__ import annotations

import socket
from typing import Protocol, cast

import uvicorn
from fastapi import FastAPI

from app.http.connections import Connections

TICKS_A_SECOND = 10
"""How often uvicorn calls `on_tick`."""


class Streams(Protocol):
    """The streams that an application has open, as `app.events.feed.Feed` keeps them."""

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


class HttpServer(uvicorn.Server):
    """Ends the streams first. They would otherwise run until the grace is over, and be cut without a word."""

    def __init__(
        self,
        config: uvicorn.Config,
        streams: Streams | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Takes the streams of the application that the config serves; give them if it is wrapped.

        `connections` are those of the config's protocol, if that limits them.
        """
        super().__init__(config)
        self._connections = connections
        self._streams: Streams = streams or cast(FastAPI, config.app).state.feed

    async def on_tick(self, counter: int) -> bool:
        """Looks after silent connections once a second, beside what uvicorn does."""
        if self._connections and counter % TICKS_A_SECOND == 0:
            self._connections.close_late()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)
        await self._streams.wait_closed()
