"""Uploads in parts on the wire."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import BaseModel, Field

from app.files.models import File
from app.files.schemas import MAX_EXPIRY, MIN_EXPIRY, FileOut, Purpose
from app.uploads.models import Upload, UploadPart
from app.wire import Wire

MAX_PARTS = 10_000


class ExpiresAfter(Wire):
    """How long the file is kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRY, le=MAX_EXPIRY)


class UploadCreate(Wire):
    filename: str = Field(min_length=1, max_length=1024)
    purpose: Purpose
    bytes: int = Field(ge=0)
    mime_type: str = Field(min_length=1, max_length=255)
    expires_after: ExpiresAfter | None = None


class UploadComplete(Wire):
    part_ids: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=MAX_PARTS, description="The parts in the order of the file."
    )
    md5: str | None = Field(
        default=None, max_length=64, description="Checksum of the whole file, in hexadecimal."
    )


class UploadOut(BaseModel):
    """A file that arrives in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileOut | None = None

    @classmethod
    def of(cls, upload: Upload, file: File | None = None) -> UploadOut:
        return cls(
            id=upload.id,
            bytes=upload.bytes,
            created_at=int(upload.created_at.timestamp()),
            expires_at=int(upload.expires_at.timestamp()),
            filename=upload.filename,
            purpose=upload.purpose,
            status=cast("Literal['pending', 'completed', 'cancelled', 'expired']", upload.status),
            file=FileOut.of(file) if file else None,
        )


class PartOut(BaseModel):
    """One part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str

    @classmethod
    def of(cls, part: UploadPart) -> PartOut:
        return cls(id=part.id, created_at=int(part.created_at.timestamp()), upload_id=part.upload_id)
