"""Takes an upload off the wire: multipart, pushed straight to a file, hashed and counted on the way."""

from __future__ import annotations

import asyncio
import hashlib
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.disk import free_bytes, hold, remove_unheld
from app.errors import BadRequest, NoRoom, RequestTimeout, TooLarge
from app.ids import random_id

BATCH = 2**20
MAX_FIELDS = 8
MAX_FIELD_BYTES = 1024
MAX_OVERHEAD = 64 * 1024
"""How much longer than its file a form may be: boundaries, headers, fields."""
CHUNK_SECONDS = 60.0
"""How long a client may stay silent."""
WHOLE_SECONDS = 3600.0
"""How long an upload may take, however steadily it drips."""

SPOOLED = "upload-"
"""Names of files that are being received begin so."""
REMAINS_SECONDS = 24 * 3600.0
"""A file that is older is what a killed process left, also where nobody can tell whether it is held."""
SWEEP_SECONDS = 3600.0


@dataclass(frozen=True)
class Upload:
    """A received form: its text fields, and its file in a temporary place."""

    fields: dict[str, str]
    path: Path
    filename: str
    size: int
    sha256: str

    def parameters(self) -> dict[str, Any]:
        """Returns what tells this form from another."""
        return {"fields": self.fields, "filename": self.filename, "sha256": self.sha256}


@asynccontextmanager
async def receive_upload(
    request: Request,
    folder: Path,
    max_bytes: int,
    *,
    field: str = "file",
    seconds: float = WHOLE_SECONDS,
    leave_free: int = 0,
) -> AsyncIterator[Upload]:
    """Receives the form of this request. Its file, the one named `field`, lies in `folder` and is gone
    afterwards unless moved away. Raises `NoRoom` where fewer than `leave_free` bytes would be left."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise BadRequest("Send the file as multipart/form-data.", code="unsupported_content_type")
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > max_bytes + MAX_OVERHEAD:
        raise _too_large(max_bytes, field)
    await run_in_threadpool(_make_ready, folder, (int(told) if told.isdecimal() else 0) + leave_free)
    path = folder / random_id(SPOOLED)
    try:
        with path.open("wb") as file:
            hold(file)
            form = _Form(request.headers.get("content-type", ""), file, max_bytes, field)
            await _feed_in_time(request, form, seconds)
            file.flush()
            yield form.finished(path)
    finally:
        path.unlink(missing_ok=True)


def _make_ready(folder: Path, size: int) -> None:
    """Makes the folder. Raises `NoRoom` if so many bytes are not free there."""
    folder.mkdir(parents=True, exist_ok=True)
    if free_bytes(folder) < size:
        raise NoRoom("this upload")


async def keep_swept(folder: Path, every_seconds: float = SWEEP_SECONDS) -> None:
    """Removes, again and again, what processes left in `folder` that were killed while they received."""
    while True:
        await run_in_threadpool(_remove_remains, folder)
        await asyncio.sleep(every_seconds)


def _remove_remains(folder: Path) -> None:
    remove_unheld(folder.glob(f"{SPOOLED}*"))
    for path in folder.glob(f"{SPOOLED}*"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if path.stat().st_mtime < time.time() - REMAINS_SECONDS:
                path.unlink()


async def _feed_in_time(request: Request, form: _Form, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await _feed(request, form)
    except TimeoutError:
        message = f"The upload took more than {seconds:.0f} s. Send the file in parts, to /v1/uploads."
        raise RequestTimeout(message) from None


async def _feed(request: Request, form: _Form) -> None:
    """Writes the body in batches on a worker thread: disks may block."""
    stream = aiter(request.stream())
    waiting = bytearray()
    while chunk := await _next_chunk(stream):
        waiting += chunk
        if len(waiting) >= BATCH:
            await run_in_threadpool(form.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(form.write, bytes(waiting))


async def _next_chunk(stream: AsyncIterator[bytes]) -> bytes:
    try:
        async with asyncio.timeout(CHUNK_SECONDS):
            async for chunk in stream:
                if chunk:
                    return chunk
            return b""
    except TimeoutError:
        raise RequestTimeout(f"The upload stopped for more than {CHUNK_SECONDS:.0f} s.") from None


class _Form:
    """The callbacks of the push parser. They take one file, of a given name, and a few short fields."""

    def __init__(self, content_type: str, file: IO[bytes], max_bytes: int, file_field: str) -> None:
        _, options = parse_options_header(content_type)
        self._file = file
        self._max_bytes = max_bytes
        self._file_field = file_field
        self._fields: dict[str, bytearray] = {}
        self._field: bytearray | None = None
        self._in_file = False
        self._filename: str | None = None
        self._size = 0
        self._hash = hashlib.sha256()
        self._header_name, self._header_value = b"", b""
        self._disposition = b""
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value_part,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        except FormParserError as fault:
            raise _malformed(str(fault)) from None
        if not options.get(b"boundary"):
            raise _malformed("its content type names no boundary")

    def write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as fault:
            raise _malformed(str(fault)) from None

    def finished(self, path: Path) -> Upload:
        """Returns what was received. Raises `BadRequest` if the form is not whole."""
        if not self._ended:
            raise _malformed("it ends in the middle")
        if self._filename is None:
            message = f"Missing required parameter: '{self._file_field}'."
            raise BadRequest(message, param=self._file_field, code="missing_required_parameter")
        try:
            fields = {name: value.decode("utf-8") for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise _malformed("a field is not UTF-8") from None
        return Upload(fields, path, self._filename, self._size, self._hash.hexdigest())

    def _part_begin(self) -> None:
        self._disposition, self._field, self._in_file = b"", None, False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_part(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("a part has no name")
        name = options[b"name"].decode("utf-8", "replace")
        if name == self._file_field:
            if self._filename is not None:
                raise BadRequest("Send one file per request.", param=name)
            self._filename = clean_filename(options.get(b"filename", b"").decode("utf-8", "replace"))
            self._in_file = True
            return
        if len(self._fields) == MAX_FIELDS:
            raise _malformed(f"more than {MAX_FIELDS} fields")
        self._field = self._fields[name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._size += end - start
            if self._size > self._max_bytes:
                raise _too_large(self._max_bytes, self._file_field, self._filename)
            part = memoryview(data)[start:end]
            self._hash.update(part)
            self._file.write(part)
        elif self._field is not None:
            self._field += data[start:end]
            if len(self._field) > MAX_FIELD_BYTES:
                raise _malformed(f"a field is longer than {MAX_FIELD_BYTES} bytes")

    def _end(self) -> None:
        self._ended = True


def clean_filename(name: str) -> str:
    """Returns the last part of a path, without control or formatting characters, at most 255 bytes long."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if unicodedata.category(letter)[0] != "C").strip()
    if name in ("", ".", ".."):
        return "upload"
    stem, dot, ending = name.rpartition(".")
    ending = dot + ending if stem and len(ending) <= 16 else ""
    room = 255 - len(ending.encode())
    return name.removesuffix(ending).encode()[:room].decode("utf-8", "ignore") + ending


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"We could not read the multipart form of your request: {why}.")


def _too_large(max_bytes: int, param: str, filename: str | None = None) -> TooLarge:
    named = f"The file {filename}" if filename else "The file"
    return TooLarge(f"{named} is too large: at most {max_bytes} bytes are taken.", param=param)
