"""Bytes that a client gets whole or from where it stopped: `Range`, `If-Range`, `ETag`, a digest.

RFC 9110, sections 13.1.5 and 14, and RFC 9530.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from fastapi.responses import StreamingResponse

from app.errors import ApiError

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)
"""One range of positions that a 64 bit number holds; any other is answered with all."""


class RangeNotSatisfiable(ApiError):
    """A client asks for bytes behind the end, or for none."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        message = f"There are {size} bytes, and the range that was asked for has none of them."
        super().__init__(message, headers={"content-range": f"bytes */{size}", "accept-ranges": "bytes"})


class Download(NamedTuple):
    """Something that may be sent in parts.

    Attributes:
        digest: the SHA-256 of all of it.
        chunks: yields the bytes from a position up to another.
    """

    filename: str
    media_type: str
    size: int
    digest: bytes
    chunks: Callable[[int, int], Iterator[bytes]]


def respond(download: Download, asked: Mapping[str, str]) -> StreamingResponse:
    """Returns the whole, or the one range that a request's headers ask for. Raises `RangeNotSatisfiable`."""
    etag = f'"{download.digest.hex()}"'
    part = _part(asked, download.size, etag)
    start, stop = part or (0, download.size)
    headers = {
        "accept-ranges": "bytes",
        "content-disposition": f'attachment; filename="{download.filename}"',
        "content-length": str(stop - start),
        "etag": etag,
        "repr-digest": f"sha-256=:{base64.b64encode(download.digest).decode()}:",
    }
    if part:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{download.size}"
    return StreamingResponse(
        download.chunks(start, stop), 206 if part else 200, headers, media_type=download.media_type
    )


def is_ranged(asked: Mapping[str, str]) -> bool:
    """Tells whether a request asks for a part."""
    return _RANGE.fullmatch(asked.get("range", "")) is not None


def _part(asked: Mapping[str, str], size: int, etag: str) -> tuple[int, int] | None:
    """Returns the first byte and the one behind the last; None where all is to be sent."""
    matched = _RANGE.fullmatch(asked.get("range", ""))
    if matched is None or asked.get("if-range", etag).strip() != etag:
        return None
    first, last = matched.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None  # RFC 9110, 14.1.1: it is no range
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(size - int(last), 0), size
    if start >= stop:
        raise RangeNotSatisfiable(size)
    return start, stop
