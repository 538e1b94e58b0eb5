"""Limits the requests per minute of each key: a token bucket in the broker's Redis or Valkey, for all API
processes.

Without one (`filesystem://`), or while it is away, each process counts for itself: requests go on, and the
limit holds for each process.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import redis
import structlog

from app.errors import RateLimited

log = structlog.get_logger(__name__)

MINUTE = 60.0
TIMEOUT_SECONDS = 0.5
AWAY_SECONDS = 5.0
"""How long a store that failed is left alone: no request should wait for it in vain."""
MAX_KEYS = 10_000
"""Buckets that a process keeps itself; the ones used longest ago are full again anyway."""

# The same arithmetic as `_taken`, in one step and by the store's own clock.
TAKE = """
local limit, cost, time = tonumber(ARGV[1]), tonumber(ARGV[2]), redis.call('TIME')
local now = time[1] + time[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(limit, (tonumber(kept[1]) or limit) + (now - (tonumber(kept[2]) or now)) * limit / 60)
local taken = 0
if tokens >= cost then tokens = math.min(limit, tokens - cost); taken = 1 end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], 61)
return {taken, string.format('%.6f', tokens)}
"""


class Grant(NamedTuple):
    """What a key may still do. `tokens` are requests, with the part of one that has refilled."""

    is_granted: bool
    limit: int
    tokens: float

    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(math.floor(self.tokens)),
            "x-ratelimit-reset-requests": duration((self.limit - self.tokens) / self.limit * MINUTE),
        }

    @property
    def wait(self) -> float:
        """Returns the seconds until there is a whole request again."""
        return max(0.0, (1 - self.tokens) / self.limit * MINUTE)

    def check(self) -> None:
        """Raises `RateLimited`, which says how long to wait."""
        if self.is_granted:
            return
        wait = self.wait
        raise RateLimited(
            f"Rate limit reached: this key may make {self.limit} requests per minute. "
            f"Try again in {duration(wait)}.",
            headers={"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))},
        )


class RateLimiter:
    """Holds the buckets, as one process sees them. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._own: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._url = ""
        self._script: Callable[..., Any] | None = None
        self._away_until = -math.inf

    def take(self, key_id: str, limit: int, broker_url: str, cost: int = 1) -> Grant:
        """Takes one request out of a key's bucket, which holds `limit` and fills up once a minute.

        A `cost` of -1 puts one back that was taken and is not to count.
        """
        script = self._script_of(broker_url)
        if script and self._clock() >= self._away_until:
            try:
                taken, tokens = script(keys=[f"cherry:rate:{key_id}"], args=[limit, cost])
                return Grant(bool(taken), limit, float(tokens))
            except redis.RedisError as problem:
                self._away_until = self._clock() + AWAY_SECONDS
                log.warning(
                    "rate_limit_store_away", problem=str(problem), for_now="each process counts alone"
                )
        return self._take_own(key_id, limit, cost)

    def _take_own(self, key_id: str, limit: int, cost: int) -> Grant:
        now = self._clock()
        with self._lock:
            tokens, at = self._own.pop(key_id, (float(limit), now))
            is_granted, tokens = _taken(tokens, now - at, limit, cost)
            self._own[key_id] = (tokens, now)
            while len(self._own) > MAX_KEYS:
                self._own.popitem(last=False)
        return Grant(is_granted, limit, tokens)

    def _script_of(self, broker_url: str) -> Callable[..., Any] | None:
        with self._lock:
            if broker_url != self._url:
                client = _client(broker_url)
                self._url, self._script = broker_url, client.register_script(TAKE) if client else None
            return self._script


def duration(seconds: float) -> str:
    """Writes a duration as OpenAI does: `20ms`, `1s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def _taken(tokens: float, elapsed: float, limit: int, cost: int) -> tuple[bool, float]:
    """Fills a bucket up by what has flowed in meanwhile, then takes the cost out if there is as much."""
    tokens = min(limit, tokens + elapsed * limit / MINUTE)
    return (True, min(limit, tokens - cost)) if tokens >= cost else (False, tokens)


def _client(broker_url: str) -> redis.Redis | None:
    """Returns the broker as a store of ours, if it is one; nothing is connected yet."""
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": None,
    }
    parts = urlsplit(broker_url)
    if parts.scheme in ("redis", "rediss"):
        return redis.Redis.from_url(broker_url, **options)
    if parts.scheme in ("redis+socket", "unix"):
        return redis.Redis(unix_socket_path=unquote(parts.path), password=parts.password, **options)
    return None
