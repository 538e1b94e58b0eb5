"""Files on the wire."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, NamedTuple, cast, get_args

from pydantic import BaseModel

from app.errors import BadRequest
from app.files.models import File
from app.files.receive import Upload
from app.pagination import Page
from app.wire import seconds

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
JSONL_ONLY = ("fine-tune", "batch")
MAX_BATCH_BYTES = 200 * 2**20
MIN_EXPIRY, MAX_EXPIRY = 3600, 2_592_000
BATCH_EXPIRY = timedelta(days=30)


class FileOut(BaseModel):
    """An uploaded or produced file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"

    @classmethod
    def of(cls, file: File) -> FileOut:
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created_at.timestamp()),
            expires_at=seconds(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
            status=cast("Literal['uploaded', 'processed', 'error']", file.status),
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileOut]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, page: Page[File]) -> FileList:
        data = [FileOut.of(file) for file in page.rows]
        first, last = (data[0].id, data[-1].id) if data else ("", "")
        return cls(data=data, first_id=first, last_id=last, has_more=page.has_more)


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class UploadForm(NamedTuple):
    """The fields of an upload, checked."""

    purpose: Purpose
    expires_after: timedelta | None

    @classmethod
    def of(cls, upload: Upload) -> UploadForm:
        """Checks an upload's fields and file. Raises `BadRequest`."""
        purpose = upload.fields.get("purpose")
        if not purpose:
            raise BadRequest(
                "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
            )
        if purpose not in get_args(Purpose):
            known = ", ".join(f"'{each}'" for each in get_args(Purpose))
            message = f"Invalid value: {purpose[:80]!r} for 'purpose'. Supported values are: {known}."
            raise BadRequest(message, param="purpose", code="invalid_value")
        if upload.size == 0:
            raise BadRequest(f"The file {upload.filename} is empty.", param="file")
        check_fits_purpose(purpose, upload.filename, upload.size, FORM_FIELDS)
        return cls(cast("Purpose", purpose), _expiry(purpose, upload.fields))


class FieldNames(NamedTuple):
    """Says where a request names a file and tells its length, for the `param` of errors."""

    filename: str
    size: str


FORM_FIELDS = FieldNames(filename="file", size="file")


def check_fits_purpose(purpose: str, filename: str, size: int, names: FieldNames) -> None:
    """Refuses what a purpose does not take. Raises `BadRequest`."""
    if purpose in JSONL_ONLY and not filename.lower().endswith(".jsonl"):
        message = f"A file with the purpose '{purpose}' must be named *.jsonl, not {filename}."
        raise BadRequest(message, param=names.filename, code="invalid_file_format")
    if purpose == "batch" and size > MAX_BATCH_BYTES:
        message = (
            f"A file with the purpose 'batch' has at most {MAX_BATCH_BYTES} bytes; {filename} has {size}."
        )
        raise BadRequest(message, param=names.size, code="file_too_large")


def default_expiry(purpose: str) -> timedelta | None:
    """Returns how long a file is kept whose request does not say."""
    return BATCH_EXPIRY if purpose == "batch" else None


def _expiry(purpose: str, fields: dict[str, str]) -> timedelta | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return default_expiry(purpose)
    for param, value in (("expires_after[anchor]", anchor), ("expires_after[seconds]", seconds)):
        if value is None:
            message = f"Missing required parameter: '{param}'."
            raise BadRequest(message, param=param, code="missing_required_parameter")
    if anchor != "created_at":
        param = "expires_after[anchor]"
        raise BadRequest(
            "Invalid value for 'expires_after[anchor]': it must be 'created_at'.",
            param=param,
            code="invalid_value",
        )
    if not (seconds or "").isascii() or not (seconds or "").isdecimal() or len(seconds or "") > 9:
        raise _bad_seconds("invalid_type")
    if int(seconds or 0) < MIN_EXPIRY:
        raise _bad_seconds("integer_below_min_value")
    if int(seconds or 0) > MAX_EXPIRY:
        raise _bad_seconds("integer_above_max_value")
    return timedelta(seconds=int(seconds or 0))


def _bad_seconds(code: str) -> BadRequest:
    message = (
        f"Invalid value for 'expires_after[seconds]': expected an integer from {MIN_EXPIRY} to {MAX_EXPIRY}."
    )
    return BadRequest(message, param="expires_after[seconds]", code=code)
