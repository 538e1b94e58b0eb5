"""Several processes of the API behind one port."""

from __future__ import annotations

import os
import signal
import sys

import httpx2 as httpx
import pytest

from app.embedded.process import descendants, is_alive
from app.settings import Settings
from benchmarks.api.service import running_api
from tests.e2e.service import wait_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals"),
]


def test_one_that_is_killed_is_replaced_and_none_outlives_the_first(settings: Settings) -> None:
    with running_api({"CHERRY_API_PROCESSES": "2"}) as (url, pid):
        wait_for(lambda: len(descendants(pid)) == 2, what="two processes")
        killed, kept = descendants(pid)
        os.kill(killed, signal.SIGKILL)
        answers = [httpx.get(f"{url}/healthz").status_code for _ in range(5)]
        assert answers == [200] * 5  # by the other one
        wait_for(lambda: len(descendants(pid)) == 2 and killed not in descendants(pid), what="a new one")
        members = descendants(pid)
        assert kept in members
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not any(map(is_alive, members)), seconds=20, what="the end of all")


def test_when_the_first_is_killed_the_others_end_too(settings: Settings) -> None:
    with running_api({"CHERRY_API_PROCESSES": "2"}) as (_, pid):
        wait_for(lambda: len(descendants(pid)) == 2, what="two processes")
        members = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, members)), seconds=20, what="the end of all")
