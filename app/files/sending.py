"""Sends a stored file to be saved and never shown, to the API's clients and to browsers alike."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import StreamingResponse

from app.files import service as files
from app.files.models import File
from app.storage import get_storage


def sent(file: File) -> StreamingResponse:
    """Returns the bytes of a file as they came or were produced. Raises `NotFound` where they are gone."""
    try:
        chunks = get_storage().open_stream(file.storage_key)
    except FileNotFoundError:
        raise files.not_found(file.id) from None
    headers = {"content-disposition": attachment(file.filename), "content-length": str(file.bytes)}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


def attachment(filename: str) -> str:
    """Returns a Content-Disposition that saves and never shows; any name is safe in it (RFC 6266)."""
    plain = "".join(letter if letter.isalnum() or letter in "._- " else "_" for letter in filename)
    plain = plain.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
