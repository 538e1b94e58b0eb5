"""Keeps connections that say nothing from using up the server: limits of time and of number.

A process may have only so many descriptors open. Those of silent connections are taken back: after a while,
and at once when others need them. A connection is silent until the head of a request is whole, and again once
it has its response.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.addresses import Network

log = structlog.get_logger(__name__)

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive; over bad lines it takes two or three."""
REST_SECONDS = 60.0
"""How long a client may pause that still sends a body whose request was refused (see app/files/receive)."""
MOST_RESERVED = 1024
"""Descriptors that connections never get: for database, files, sandbox, and what is accepted at a time."""
IPV6_SITE = 64
"""Bits of an IPv6 address that name a network: one client has all the addresses in it."""


class Connections:
    """The open connections of one process."""

    def __init__(
        self,
        most: Places,
        most_of_address: int,
        trusted: Iterable[Network] = (),
        *,
        head_seconds: float = HEAD_SECONDS,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        """Takes the most connections, in all and of one address; `trusted` proxies speak for many."""
        self.head_seconds = head_seconds
        self.rest_seconds = rest_seconds
        self.most = most
        self._most_of_address = most_of_address
        self._trusted = tuple(trusted)
        self._of_address: Counter[str] = Counter()
        self._silent: dict[LimitedProtocol, None] = {}
        """In the order in which they fell silent."""

    def admit(self, connection: LimitedProtocol) -> bool:
        """Counts a new connection; a silent one may have to go for it. Returns False if there is no room."""
        address = connection.address
        is_crowded = self._of_address[address] >= self._most_of_address and not self._is_proxy(address)
        is_full = self._of_address.total() >= self.most.open
        if (is_crowded and not self._close_one(address)) or (is_full and not self._close_one(None)):
            log.warning("connection_refused", address=address, open=self._of_address[address])
            return False
        self._of_address[address] += 1
        self._silent[connection] = None
        return True

    def leave(self, connection: LimitedProtocol) -> None:
        """Forgets a connection that was admitted."""
        self._silent.pop(connection, None)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def is_silent(self, connection: LimitedProtocol) -> bool:
        return connection in self._silent

    def speaks(self, connection: LimitedProtocol) -> None:
        """Notes that the head of a request has arrived."""
        self._silent.pop(connection, None)

    def falls_silent(self, connection: LimitedProtocol) -> None:
        """Notes that a connection has its response."""
        self._silent[connection] = None

    def close_late(self) -> None:
        """Closes what has let its time go by."""
        now = time.monotonic()
        for connection in [each for each in self._silent if each.deadline < now]:
            connection.cut()

    def _close_one(self, address: str | None) -> bool:
        """Closes the connection that is silent for longest, of an address or of the one with the most."""
        if address is None:
            silent = Counter(each.address for each in self._silent)
            address = max(silent, key=silent.__getitem__, default=None)
        for connection in self._silent:
            if connection.address == address:
                connection.cut()
                return True
        return False

    def _is_proxy(self, address: str) -> bool:
        with contextlib.suppress(ValueError):
            return any(ip_network(address)[0] in network for network in self._trusted)
        return False


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, within the limits of `Connections`."""

    limits: Connections
    """Of the process; `limited_protocol` sets it."""
    address = ""
    deadline = float("inf")
    """When a silent connection is closed, by the monotonic clock. Between requests uvicorn does it."""
    _is_admitted = False
    _is_in_message = False

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.address = address_key(self.client[0] if self.client else "")
        self._is_admitted = self.limits.admit(self)
        if self._is_admitted:
            self.deadline = time.monotonic() + self.limits.head_seconds
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.limits.is_silent(self):
            return
        if self._is_in_message and self.cycle is not None and self.headers_are_whole:
            self.deadline = time.monotonic() + self.limits.rest_seconds
        elif self.deadline == float("inf"):
            self.deadline = time.monotonic() + self.limits.head_seconds

    def on_message_begin(self) -> None:
        self._is_in_message, self.headers_are_whole = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.headers_are_whole, self.deadline = True, float("inf")
        if self._is_admitted:
            self.limits.speaks(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_admitted and (self.cycle is None or self.cycle.response_complete):
            self.limits.falls_silent(self)

    def cut(self) -> None:
        """Closes the connection at once."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self.limits.leave(self)


def limited_protocol(connections: Connections) -> type[LimitedProtocol]:
    """Returns the protocol class for uvicorn whose connections are counted there."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": connections})


def address_key(address: str) -> str:
    """Returns what stands for a client: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, IPV6_SITE), strict=False))
    return address


class Places(NamedTuple):
    """Connections that a process has descriptors for: open ones, and ones that wait to be accepted."""

    open: int
    waiting: int
    """All of these may be accepted before the first of them is counted."""


def places() -> Places:
    """Returns what this process has, after raising its limit of descriptors to the highest it may set."""
    limit = _raised_limit()
    reserved = min(MOST_RESERVED, limit // 2)
    return Places(limit - reserved, reserved // 2)


def _raised_limit() -> int:
    if sys.platform == "win32":
        return 2 * MOST_RESERVED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize
