"""Erasures on the wire."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from app.erasures.models import Cause, Erasure
from app.errors import BadRequest
from app.pagination import MAX_CURSOR, Listed, Page
from app.wire import Metadata, Wire

Kind = Literal["chat_completions", "responses"]
MAX_IDS = 1000
LAST_SECOND = 253_402_300_799


class ErasureCreate(Wire):
    """What of the stored shall go: what fits all that is given, or everything with `all`."""

    all: bool = Field(default=False, description="Everything that is stored: chats, responses, feedback.")
    ids: list[str] | None = Field(
        default=None, min_length=1, max_length=MAX_IDS, description="Of chat completions and responses."
    )
    model: str | None = Field(default=None, max_length=MAX_CURSOR, description="The model that wrote it.")
    metadata: Metadata | None = Field(
        default=None, min_length=1, description="Pairs that it carries, such as those of one person."
    )
    created_after: int | None = Field(default=None, ge=0, le=LAST_SECOND, description="Included.")
    created_before: int | None = Field(default=None, ge=0, le=LAST_SECOND, description="Not included.")
    datasets: Literal["keep", "delete"] = Field(
        default="keep", description="What happens to the files of data sets that hold rows of it."
    )

    def check(self) -> None:
        """Raises `BadRequest` for a request that names nothing, or names something beside `all`."""
        named = self.filter()
        if self.all == bool(named):
            told = "Say what shall go: 'ids', 'model', 'metadata', a time, or 'all' alone for everything."
            raise BadRequest(told, param="all", code="invalid_value")

    def filter(self) -> dict[str, Any]:
        """Returns what was given of what narrows it."""
        return self.model_dump(exclude={"all", "datasets"}, exclude_none=True)


class DatasetLeft(BaseModel):
    """A data set that was made of what went, and what was trained on it."""

    id: str
    file_id: str | None
    rows: int = Field(description="Rows that came from what went.")
    file_deleted: bool
    jobs: list[str]
    models: list[str]


class ErasureOut(BaseModel):
    """A record of what went. It holds nothing of it."""

    object: Literal["erasure"] = "erasure"
    id: str
    created_at: int
    project_id: str
    cause: Cause
    day: str | None = Field(description="Of what went as its time was over: the day (UTC).")
    requested_by: str | None = Field(description="The API key that asked, or `operator`.")
    filter: dict[str, Any] | None = Field(description="What was to go; of metadata the names alone.")
    counts: dict[str, int]
    datasets: list[DatasetLeft]

    @classmethod
    def of(cls, row: Erasure) -> ErasureOut:
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            project_id=row.project_id,
            cause=cast(Cause, row.cause),
            day=row.day.isoformat() if row.day else None,
            requested_by=row.requested_by,
            filter=row.filter,
            counts=row.counts,
            datasets=[DatasetLeft(**each) for each in row.datasets],
        )


class ErasureList(Listed[ErasureOut]):
    @classmethod
    def of(cls, page: Page[Erasure]) -> ErasureList:
        return cls.holding([ErasureOut.of(row) for row in page.rows], page.has_more)


class RetentionUpdate(Wire):
    """How long a project's stored completions and responses are kept."""

    seconds: int | None = Field(description="Null for as long as the operator says.")


class RetentionOut(BaseModel):
    """How long a project's stored completions and responses are kept."""

    object: Literal["project.completions_retention"] = "project.completions_retention"
    project_id: str
    seconds: int | None = Field(description="As it is set for the project; null if it is not.")
    effective_seconds: int
