"""Requests per minute of a key: counted in Valkey, or by the process itself where there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
import redis
from sqlalchemy.orm import Session

from app.embedded.valkey import Valkey, server_binary
from app.errors import RateLimited
from app.http.rate_limit import MAX_KEYS, Grant, RateLimiter, duration
from app.settings import get_settings
from app.tenants import service as tenants
from tests.app.answers import error_of
from tests.factories import Tenant

JOBS = "/v1/fine_tuning/jobs"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    binary = server_binary()
    assert binary
    with tempfile.TemporaryDirectory(prefix="cherry-test-") as folder:
        server = Valkey(Path(folder) / "valkey", binary)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, http: httpx.Client) -> None:
    monkeypatch.setenv("CHERRY_REQUESTS_PER_MINUTE", "2")
    get_settings.cache_clear()


def test_a_bucket_fills_up_once_a_minute() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)

    def take() -> tuple[bool, float]:
        grant = limiter.take("key_a", 4, "filesystem:///nowhere")
        return grant.is_granted, grant.tokens

    assert [take() for _ in range(5)] == [(True, 3), (True, 2), (True, 1), (True, 0), (False, 0)]
    clock.now += 14
    assert take() == (False, pytest.approx(14 / 15))
    clock.now += 1
    assert take() == (True, pytest.approx(0))
    clock.now += 3600
    assert take() == (True, 3)


def test_buckets_of_keys_are_apart_and_bounded() -> None:
    limiter = RateLimiter(Clock())
    for number in range(MAX_KEYS + 5):
        assert limiter.take(f"key_{number}", 1, "filesystem:///nowhere").is_granted
    assert not limiter.take(f"key_{MAX_KEYS}", 1, "filesystem:///nowhere").is_granted
    assert len(limiter._own) == MAX_KEYS


def test_processes_share_the_bucket_in_valkey(valkey: Valkey) -> None:
    processes = [RateLimiter() for _ in range(3)]
    granted = [limiter.take("key_shared", 2, valkey.url).is_granted for limiter in processes]
    assert granted == [True, True, False]
    assert processes[0].take("key_other", 2, valkey.url).is_granted
    with redis.Redis(unix_socket_path=valkey.url.removeprefix("redis+socket://")) as client:
        assert 0 < client.ttl("cherry:rate:key_shared") <= 61


@pytest.mark.parametrize("url", ["redis+socket:///nowhere/valkey.sock", "redis://127.0.0.1:1/0"])
def test_a_store_that_is_away_leaves_each_process_to_itself(url: str) -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    assert [limiter.take("key_a", 1, url).is_granted for _ in range(3)] == [True, False, False]


def test_a_store_that_came_back_is_used_again(valkey: Valkey) -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    limiter.take("key_back", 100, valkey.url)
    limiter._away_until = 5.0  # as after a failure
    assert limiter.take("key_back", 100, valkey.url).tokens == 99, "counted by the process"
    clock.now = 5.0
    assert limiter.take("key_back", 100, valkey.url).tokens < 98.5, "counted in Valkey"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.02, "20ms"), (0.9995, "1s"), (1, "1s"), (8.2, "9s"), (60, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_left_is_told_and_what_is_too_much_says_when() -> None:
    assert Grant(True, 120, 59.5).headers() == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "31s",
    }
    with pytest.raises(RateLimited, match=r"120 requests per minute\. Try again in 250ms") as refused:
        Grant(False, 120, 0.5).check()
    assert refused.value.headers == {"retry-after": "1", "retry-after-ms": "250"}


@pytest.mark.parametrize("store", ["valkey", "filesystem"])
@pytest.mark.usefixtures("limited")
def test_a_key_that_asks_too_often_is_told_so(
    http: httpx.Client,
    server_url: str,
    db: Session,
    tenant: Tenant,
    valkey: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
) -> None:
    if store == "valkey":
        monkeypatch.setenv("CHERRY_BROKER_URL", valkey.url)
        get_settings.cache_clear()
    second = tenants.create_key(db, tenant.project_id, "second")
    db.commit()
    first, unknown, third = http.get("/v1/models"), http.get("/v1/nowhere"), http.post(JOBS, json={})
    assert [answer.status_code for answer in (first, unknown, third)] == [200, 404, 429]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert unknown.headers["x-ratelimit-remaining-requests"] == "0"
    error = error_of(third)
    assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert int(third.headers["retry-after-ms"]) <= 30_000
    assert "x-should-retry" not in third.headers, "waiting helps, so the client may repeat it"
    other = {"authorization": f"Bearer {second.plaintext}"}
    assert http.get("/v1/models", headers=other).status_code == 200
    assert httpx.get(f"{server_url}/healthz").status_code == 200
    with (
        openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key, max_retries=0) as client,
        pytest.raises(openai.RateLimitError, match="2 requests per minute"),
    ):
        client.models.list()


def test_without_a_limit_nothing_is_said_of_one(http: httpx.Client) -> None:
    assert [name for name in http.get("/v1/models").headers if name.startswith("x-ratelimit")] == []


@pytest.mark.usefixtures("limited")
def test_what_is_refused_for_its_rate_is_not_read(http: httpx.Client) -> None:
    for _ in range(2):
        http.get("/v1/models")
    assert http.post(JOBS, content=b"{" * 900_000).status_code == 429
