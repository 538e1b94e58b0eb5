"""Sends HTTP to addresses that users name: only to public ones, or those an operator has allowed.

A name is checked where it matters, in the connection itself: it is resolved once, every address is checked,
and only a checked address is dialled, under the original name (Host, SNI, certificate). So a name that
resolves differently a moment later gains nothing. Redirects are not followed, proxies not used.

    with outbound_client(rules_of(get_settings()), total_seconds=10) as client:
        with client.stream("POST", url, json=body) as response:
            content = read_at_most(response, 65536)

Raises `TargetRefused` for a forbidden target, `httpx2.HTTPError` for whatever goes wrong on the way.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import httpcore2
import httpx2 as httpx
import structlog

from app.addresses import Network, is_public, network_of
from app.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5.0
MAX_URL = 2048
MAX_ADDRESSES = 8
"""Of a name with more, only the first are tried; all are checked."""
NUMERIC = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)
"""Hosts that resolvers read as numbers: 2130706433, 0x7f.1, 127.1 beside 127.0.0.1."""

Resolver = Callable[[str, int], list[str]]


class TargetRefused(Exception):
    """A URL that this service must not call. The text is fit for the user who gave it: it tells neither
    addresses of this network nor which names it has."""


class ResponseTooLarge(Exception):
    """A response with a larger body than the caller takes."""


@dataclass(frozen=True)
class OutboundRules:
    """What may be called."""

    hosts: frozenset[str] = frozenset()
    """Names that may resolve to anything, and have any port."""
    networks: tuple[Network, ...] = ()
    """Addresses that are allowed though they are not public, on any port."""
    allow_http: bool = False
    ports: frozenset[int] = frozenset({443})
    ca_file: Path | None = None
    """Certificates to trust beside the system's."""


def rules_of(settings: Settings) -> OutboundRules:
    """Returns the operator's rules. Settings have been checked, so that each entry is a network or a name."""
    networks = [network for entry in settings.outbound_allow if (network := network_of(entry))]
    hosts = (entry.lower() for entry in settings.outbound_allow if network_of(entry) is None)
    return OutboundRules(
        hosts=frozenset(hosts),
        networks=tuple(networks),
        allow_http=settings.outbound_allow_http,
        ports=frozenset(settings.outbound_ports),
        ca_file=settings.outbound_ca_file,
    )


def resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a name, in the order to try them. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def check_target(url: str, rules: OutboundRules, resolver: Resolver = resolve) -> None:
    """Raises `TargetRefused` unless `url` could be called now. Waits for the name to be resolved.

    For telling a user early; a client of `outbound_client` checks again by itself.
    """
    parsed = _checked_url(url, rules)
    _checked_addresses(_host(parsed), _port(parsed), rules, resolver)


def check_url(url: str, rules: OutboundRules) -> None:
    """Checks the same as far as that goes without asking the network for a name's addresses."""
    parsed = _checked_url(url, rules)
    if _literal(_host(parsed)) is not None:
        _checked_addresses(_host(parsed), _port(parsed), rules, resolve)


def outbound_client(
    rules: OutboundRules,
    *,
    total_seconds: float,
    max_bytes: int | None = None,
    resolver: Resolver = resolve,
) -> httpx.Client:
    """Makes a client for URLs that users gave.

    Each request has a connection of its own, which is cut `total_seconds` after it was begun, however slowly
    the other side sends. `max_bytes` bounds bodies that are not read with `read_at_most`: reading more raises
    `ResponseTooLarge`, as does a body in an encoding, which nobody asked for.
    """
    return httpx.Client(
        transport=_Transport(rules, total_seconds, resolver, max_bytes),
        timeout=httpx.Timeout(total_seconds, connect=min(CONNECT_SECONDS, total_seconds)),
        headers={"accept-encoding": "identity", "user-agent": "Cherry"},
        follow_redirects=False,
        trust_env=False,
    )


def read_at_most(response: httpx.Response, limit: int) -> bytes:
    """Returns the body of a streamed response, undecoded: a small compressed body may be a large one.

    Raises `ResponseTooLarge`.
    """
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            raise ResponseTooLarge(f"The answer is larger than the {limit} bytes that are taken.")
    return bytes(body)


class _Transport(httpx.HTTPTransport):
    """Sends a request if its URL may be called, over connections of `_CheckedNetwork`."""

    def __init__(
        self, rules: OutboundRules, total_seconds: float, resolver: Resolver, max_bytes: int | None
    ) -> None:
        context = httpx.create_ssl_context(trust_env=False)
        if rules.ca_file:
            context.load_verify_locations(rules.ca_file)
        super().__init__(verify=context, trust_env=False)
        self._rules = rules
        self._max_bytes = max_bytes
        self._pool.close()
        self._pool = httpcore2.ConnectionPool(  # httpx has no public way to say who dials
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_CheckedNetwork(rules, total_seconds, resolver),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _checked_url(str(request.url), self._rules)
        response = super().handle_request(request)
        if self._max_bytes is None:
            return response
        assert isinstance(response.stream, httpx.SyncByteStream)
        bounded = _Short(response.stream, self._max_bytes)
        if response.headers.get("content-encoding", "identity") != "identity":
            bounded.close()
            raise ResponseTooLarge("The answer is compressed, which it must not be.")
        return httpx.Response(
            response.status_code, headers=response.headers, stream=bounded, extensions=response.extensions
        )


class _Short(httpx.SyncByteStream):
    """A body of so many bytes at most."""

    def __init__(self, stream: httpx.SyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise ResponseTooLarge(
                    f"The answer is larger than the {self._max_bytes} bytes that are taken."
                )
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _CheckedNetwork(httpcore2.NetworkBackend):
    """Dials only addresses that it has checked."""

    def __init__(self, rules: OutboundRules, total_seconds: float, resolver: Resolver) -> None:
        self._rules = rules
        self._total_seconds = total_seconds
        self._resolver = resolver
        self._dialler = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        deadline = time.monotonic() + self._total_seconds
        addresses = _checked_addresses(host, port, self._rules, self._resolver)
        problem: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in addresses[:MAX_ADDRESSES]:
            left = _left(timeout, deadline, httpcore2.ConnectTimeout)
            try:
                stream = self._dialler.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failed:
                problem = failed
                continue
            return _Bounded(stream, deadline)
        raise problem or httpcore2.ConnectError("the name has no address")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        raise TargetRefused("Unix sockets cannot be called.")


class _Bounded(httpcore2.NetworkStream):
    """A connection that ends at its deadline: a timeout for each read alone lets a slow sender go on for
    ever."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, self._deadline, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, self._deadline, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, self._deadline, httpcore2.ConnectTimeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, deadline: float, late: type[Exception]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("the answer took too long")
    return left if timeout is None else min(timeout, left)


def _checked_url(url: str, rules: OutboundRules) -> httpx.URL:
    """Checks what can be checked without asking the network."""
    if len(url) > MAX_URL:
        raise TargetRefused(f"The URL is longer than {MAX_URL} characters.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise TargetRefused("The URL cannot be read.") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and rules.allow_http):
        raise TargetRefused("The URL must begin with https://.")
    if not parsed.host:
        raise TargetRefused("The URL names no host.")
    if parsed.userinfo:
        raise TargetRefused("The URL must hold no user name or password.")
    host = _host(parsed)
    if _literal(host) is None and NUMERIC.fullmatch(host):
        raise TargetRefused("An address in the URL must be written as four decimal numbers.")
    return parsed


def _checked_addresses(host: str, port: int, rules: OutboundRules, resolver: Resolver) -> list[str]:
    """Returns every address of a host, all of them allowed. Raises `TargetRefused`."""
    literal = _literal(host)
    try:
        addresses = [str(literal)] if literal else resolver(host, port)
    except OSError as problem:
        log.info("outbound_unresolved", host=host, problem=str(problem))
        addresses = []
    if addresses and host.lower().rstrip(".") in rules.hosts:
        return addresses
    for address in map(ip_address, addresses):
        if any(address in network for network in rules.networks):
            continue
        if not is_public(address):
            log.warning("outbound_refused", host=host, port=port, address=str(address))
            addresses = []
            break
        if port not in rules.ports:
            allowed = ", ".join(map(str, sorted(rules.ports)))
            raise TargetRefused(f"Port {port} is not allowed; use {allowed}.")
    if not addresses:
        raise TargetRefused(
            f"'{host[:253]}' cannot be called: it has no address, or one that is not public. (The operator "
            "of this service can allow hosts and networks with CHERRY_OUTBOUND_ALLOW.)"
        )
    return addresses


def _host(parsed: httpx.URL) -> str:
    """Returns the host as it is dialled: international names in their ASCII form, IPv6 without brackets."""
    return parsed.raw_host.decode("ascii").strip("[]")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _port(parsed: httpx.URL) -> int:
    return parsed.port or (443 if parsed.scheme == "https" else 80)
