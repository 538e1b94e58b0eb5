"""Server-sent events: read out of bytes, and written."""

from __future__ import annotations

import json
from typing import Any

DONE = "[DONE]"


class EventReader:
    """Takes bytes in any pieces, and gives the data of the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[str]:
        """Returns the data of each event that is whole by now."""
        text = self._rest + received
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        *whole, self._rest = text.split(b"\n\n")
        return [data for event in whole if (data := _data(event)) is not None]


def _data(event: bytes) -> str | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines).decode("utf-8", "replace") if lines else None


def data_event(data: dict[str, Any] | str) -> bytes:
    """Returns an event as it is sent; a text is sent as it is."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return b"data: " + text.encode() + b"\n\n"


def named_event(data: dict[str, Any]) -> bytes:
    """Returns an event whose name is its `type`, as /responses sends them."""
    return f"event: {data['type']}\n".encode() + data_event(data)
