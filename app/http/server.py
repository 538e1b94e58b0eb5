"""The HTTP server: uvicorn, which lets streams end before it waits for connections to close."""

from __future__ import annotations

import socket
from typing import cast

import uvicorn
from fastapi import FastAPI

from app.events.feed import Feed


class Server(uvicorn.Server):
    """Streams would otherwise run until the grace is over, and be cut without a word."""

    def __init__(self, config: uvicorn.Config, feed: Feed | None = None) -> None:
        """`feed` is that of the application that the config serves, unless that one is wrapped."""
        super().__init__(config)
        self._feed = feed or cast(FastAPI, config.app).state.feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.close()
        await super().shutdown(sockets)
        await self._feed.wait_closed()
