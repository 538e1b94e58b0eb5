"""The embedded broker."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.embedded.valkey import Valkey, server_binary
from app.process import EmbeddedError
from tests.e2e.service import wait_for

BINARY = server_binary()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BINARY is None, reason="no Valkey or Redis here")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    assert BINARY
    started = Valkey(tmp_path / "valkey", BINARY)
    started.start()
    yield started
    started.stop()


def client(server: Valkey) -> redis.Redis:
    return redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://"))


def test_it_listens_on_a_private_socket_only(server: Valkey) -> None:
    with client(server) as valkey:
        assert valkey.config_get("port") == {"port": "0"} or valkey.config_get("port") == {b"port": b"0"}
    path = Path(server.url.removeprefix("redis+socket://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_keeps_what_it_holds_when_killed(server: Valkey) -> None:
    with client(server) as valkey:
        valkey.set("key", "value")
    server.stop()
    server.start()
    with client(server) as valkey:
        assert valkey.get("key") in ("value", b"value")
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not server.is_running())
    server.start()
    assert server.is_running()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho no memory at all\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(EmbeddedError, match="no memory at all"):
        Valkey(tmp_path / "valkey", broken).start()
