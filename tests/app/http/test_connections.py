"""Connections that say nothing take nobody's place."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

import httpx2 as httpx
import pytest
import uvicorn
from anyio import to_thread
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.embedded.supervisor import listening_socket
from app.errors import TooManyRequests
from app.http.connections import Connections, Places, address_key, limited_protocol
from app.http.edge import Edge
from app.http.server import HttpServer
from app.main import create_app
from app.settings import Settings
from tests.e2e.service import CHERRY, environment, wait_for

HALF_A_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
GET = HALF_A_HEAD + b"\r\n"
DESCRIPTORS = 256
MANY = Places(100, 100)


class NoStreams:
    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class Server:
    """A server in a thread; requests of /slow last until `go_on` is set."""

    def __init__(self, connections: Connections) -> None:
        self.go_on = threading.Event()
        self._listener = listening_socket("127.0.0.1", 0, 0)
        config = uvicorn.Config(
            self._answer,
            http=limited_protocol(connections),
            interface="asgi3",
            lifespan="off",
            log_config=None,
            ws="none",
        )
        self.server = HttpServer(config, NoStreams(), connections)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, args=([self._listener],))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await to_thread.run_sync(self.go_on.wait)
        await PlainTextResponse("hello")(scope, receive, send)

    def __enter__(self) -> Server:
        self._thread.start()
        wait_for(lambda: self.server.started, what="the server")
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.server.should_exit = True
        self._thread.join()

    def connect(self, say: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.sendall(say)
        return made


def is_closed(connection: socket.socket) -> bool:
    """Waits for the end of a connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def still_open(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("said", [b"", HALF_A_HEAD, b"\r\n"], ids=["nothing", "half-a-head", "blank"])
def test_a_head_that_does_not_come_ends_its_connection(said: bytes) -> None:
    with Server(Connections(MANY, 100, head_seconds=0.2)) as server, server.connect(said) as silent:
        assert is_closed(silent)


def test_a_second_head_that_does_not_come_ends_it_too() -> None:
    with Server(Connections(MANY, 100, head_seconds=0.8)) as server, server.connect(GET) as connection:
        assert connection.recv(1000).endswith(b"hello")
        connection.sendall(HALF_A_HEAD)
        assert is_closed(connection)


def test_a_request_under_way_takes_as_long_as_it_takes() -> None:
    with (
        Server(Connections(MANY, 100, head_seconds=0.1)) as server,
        server.connect(GET.replace(b"GET /", b"GET /slow")) as busy,
        server.connect() as silent,
    ):
        assert is_closed(silent)
        server.go_on.set()
        assert busy.recv(1000).endswith(b"hello")


@pytest.mark.parametrize(("most", "of_address"), [(100, 3), (3, 100)], ids=["of-an-address", "in-all"])
def test_the_connection_that_is_silent_for_longest_makes_room(most: int, of_address: int) -> None:
    with ExitStack() as stack, Server(Connections(Places(most, 100), of_address)) as server:
        busy = stack.enter_context(server.connect(GET.replace(b"GET /", b"GET /slow")))
        time.sleep(0.05)
        first, second = (stack.enter_context(server.connect()) for _ in range(2))
        last = stack.enter_context(server.connect(GET))
        assert last.recv(1000).endswith(b"hello")
        assert is_closed(first)
        assert still_open(second)
        assert still_open(busy)


def test_what_finds_no_silent_one_to_replace_is_refused() -> None:
    slow = GET.replace(b"GET /", b"GET /slow")
    with ExitStack() as stack, Server(Connections(MANY, 2)) as server:
        for _ in range(2):
            stack.enter_context(server.connect(slow))
        time.sleep(0.1)
        assert is_closed(stack.enter_context(server.connect()))


def test_a_trusted_proxy_speaks_for_many() -> None:
    connections = Connections(MANY, 2, [ip_network("127.0.0.0/8")])
    with ExitStack() as stack, Server(connections) as server:
        opened = [stack.enter_context(server.connect()) for _ in range(5)]
        time.sleep(0.1)
        assert all(map(still_open, opened))


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, key: str) -> None:
    assert address_key(address) == key


def test_a_forwarded_address_counts_only_from_a_trusted_proxy() -> None:
    given = {"DATABASE_URL": "postgresql:///x", "broker_url": "memory://"}
    with pytest.raises(ValueError, match="no address or network"):
        Settings(**given, trusted_proxies="proxy.example")  # type: ignore[arg-type]
    trusting = Settings(**given, trusted_proxies="10.0.0.0/8, ::1")  # type: ignore[arg-type]
    assert trusting.trusted_networks() == (ip_network("10.0.0.0/8"), ip_network("::1"))


@contextmanager
def api_with_few_descriptors(env: dict[str, str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`cherry api` that may have `DESCRIPTORS` open, and half as many until it asks for more."""
    with listening_socket("127.0.0.1", 0, 0) as listener:
        port = listener.getsockname()[1]
    limit = f'ulimit -Hn {DESCRIPTORS}; ulimit -Sn {DESCRIPTORS // 2}; exec "$@"'
    command = ["sh", "-c", limit, "sh", *CHERRY, "api", "--port", str(port)]
    api = subprocess.Popen(command, env=env)
    try:
        yield port, api
    finally:
        api.terminate()
        api.wait(30)


def answers(port: int) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    return ask


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="descriptors")
def test_twice_as_many_silent_connections_as_descriptors_switch_nothing_off(settings: Settings) -> None:
    env = environment(
        DATABASE_URL=settings.database_url,
        CHERRY_BROKER_URL=settings.broker_url,
        CHERRY_DATA_DIR=str(settings.data_dir),
    )
    with api_with_few_descriptors(env) as (port, api), ExitStack() as stack:
        wait_for(answers(port), what="the API")
        for _ in range(2 * DESCRIPTORS):
            silent = socket.socket()
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", port))
            stack.enter_context(silent)
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
        assert api.poll() is None


def test_requests_of_a_forwarded_address_are_counted_together(settings: Settings) -> None:
    """What a trusted proxy sends is counted by whom it speaks for: uvicorn has put that into the scope."""
    app = create_app(settings.model_copy(update={"max_connections_per_address": 1}))
    edge = app.build_middleware_stack()
    while not isinstance(edge, Edge):
        edge = edge.app  # type: ignore[attr-defined]
    scope = {"client": ("192.0.2.7", 1)}
    with (
        edge.counted(scope),
        edge.counted({"client": ("192.0.2.8", 1)}),
        pytest.raises(TooManyRequests, match="Too many requests of this address"),
        edge.counted(scope),
    ):
        pass
    with edge.counted(scope):
        pass
