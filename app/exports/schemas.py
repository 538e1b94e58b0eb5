"""Forms of a checkpoint on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.exports.models import Export
from app.exports.use import Format


class ExportOut(BaseModel):
    """A form of a checkpoint that a worker is making. Ask again after `Retry-After` seconds."""

    object: Literal["checkpoint.export"] = "checkpoint.export"
    format: Format
    status: Literal["queued", "running"]
    progress: dict[str, Any] | None = Field(description="What is done now, `phase`, and its `share` of 1.")
    error: None = None

    @classmethod
    def of(cls, export: Export) -> ExportOut:
        return cls.model_validate(
            {"format": export.format, "status": export.status, "progress": export.progress}
        )


class FormOut(BaseModel):
    """One form in which a checkpoint can be downloaded, and how it is used then."""

    format: Format
    path: str = Field(description="Where it is, after the address of the service.")
    refused: str | None = Field(description="Why this checkpoint does not have it; null where it does.")
    use: dict[str, str] = Field(description="By program: lines that use the form, unpacked in FOLDER.")
