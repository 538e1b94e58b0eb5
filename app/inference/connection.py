"""Makes one HTTP request over a connection of its own, and gives the response's bytes as they come.

A connection that serves one request is closed to cancel it, which no pool of connections lets happen unseen.
Parsing is httptools' (C), so that a chunk costs microseconds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 5.0
"""How long a server of this network may take to accept; the official client allows as much."""
SILENCE_SECONDS = 600.0
"""How long a server may say nothing: it may have a model to load, and work of others before it."""
MOST_HELD = 256 * 2**10
"""Bytes that wait for a slow reader before the server is no longer read from. Chosen, not measured."""
PORTS = {"http": 80, "https": 443}


class ConnectionFailed(Exception):
    """There was no connection, or it broke before the response was whole."""


class HttpResponse(asyncio.Protocol):
    """A response on its way. `head` comes first; `read` then gives the body in pieces."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._has_head = False
        self._is_whole = False
        self._fault: str | None = None
        self._is_paused = False
        self._news = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    async def head(self) -> None:
        """Waits for status and headers. Raises `ConnectionFailed`."""
        while not self._has_head:
            self._raise_fault()
            await self._wait()

    async def read(self) -> bytes:
        """Returns what has come of the body since the last call; nothing at its end.

        Raises `ConnectionFailed`.
        """
        while not self._body:
            if self._is_whole:
                return b""
            self._raise_fault()
            await self._wait()
        body, self._body = bytes(self._body), bytearray()
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return body

    async def whole(self) -> bytes:
        """Returns what is left of the body, once all of it has come. Raises `ConnectionFailed`."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Cuts the connection; a server takes that for a cancel if its response is not whole."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._news.wait()
        except TimeoutError:
            raise ConnectionFailed(f"nothing came for {SILENCE_SECONDS:.0f} seconds") from None

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise ConnectionFailed(self._fault)

    # What asyncio calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fault = f"no HTTP response came ({error})"
        if len(self._body) > MOST_HELD and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        ends_with_connection = not {"transfer-encoding", "content-length"} & self.headers.keys()
        if self._has_head and ends_with_connection and exc is None:
            self._is_whole = True
        elif not self._is_whole:
            self._fault = self._fault or "the connection broke"
        self._news.set()

    # What the parser calls:

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._is_whole = True


async def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
    """Sends a request, and returns its response once the head is there. Raises `ConnectionFailed`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 80)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, response = await loop.create_connection(HttpResponse, host, port, ssl=tls)
    except (OSError, TimeoutError) as error:
        raise ConnectionFailed(f"there is no connection ({type(error).__name__})") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    told = {
        "host": parts.netloc.rpartition("@")[2],
        "content-length": str(len(body)),
        "connection": "close",
        **headers,
    }
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    try:
        await response.head()
    except BaseException:
        response.close()
        raise
    return response
