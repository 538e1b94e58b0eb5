"""Writes logs: constant event names with ids, as JSON lines or for people. Keys never reach a log."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = re.compile(r"sk-[A-Za-z0-9_-]{8,}|whsec_[A-Za-z0-9+/=]+|(?<=://)[^/@\s:]*:[^/@\s]+(?=@)")
"""What a log hides: API keys, webhook secrets and the user:password of a URL."""


def redact(text: str) -> str:
    """Returns the text without anything that opens a door."""
    return SECRET.sub("[redacted]", text)


def configure_logging(level: str = "info", style: str = "json") -> None:
    """Sends structlog's and the standard library's events to stderr in one form."""
    to_handler = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, to_handler],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if style == "text":
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "alembic.runtime.migration"):
        logging.getLogger(noisy).setLevel("WARNING")  # the edge logs each request itself
    for telling in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(telling).setLevel("WARNING")  # they would tell what judges are asked


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event
