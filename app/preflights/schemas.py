"""Wire forms of preflights."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from app.jobs.schemas import JobCreate, JobErrorOut
from app.pagination import Listed, Page
from app.preflights.models import Preflight, Status
from app.wire import Wire, seconds

MAX_PROMPTS = 256
MAX_SAMPLES = 64
MAX_TOKENS = 4_194_304


class Limits(Wire):
    """How much is sampled from the base model."""

    prompts: int | None = Field(
        default=None, ge=0, le=MAX_PROMPTS, description="Training prompts; 0 samples nothing, 32 by default."
    )
    samples: int | None = Field(
        default=None, ge=2, le=MAX_SAMPLES, description="Completions for each; 8 by default."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=MAX_TOKENS, description="Nothing more is begun after so many; 65,536."
    )


class PreflightCreate(JobCreate):
    """The body of a job creation, and how much is sampled."""

    preflight: Limits | None = None


class Progress(BaseModel):
    """What a worker is doing, and how far it is."""

    phase: str
    done: int
    total: int


class PreflightOut(BaseModel):
    """A preflight. Its `report` grows while it runs."""

    object: Literal["fine_tuning.preflight"] = "fine_tuning.preflight"
    id: str
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: Status
    progress: Progress | None
    model: str
    training_file: str
    validation_file: str | None
    seed: int
    error: JobErrorOut | None
    report: dict[str, Any] | None = Field(description="docs/trust.md says what is in it.")

    @classmethod
    def of(cls, preflight: Preflight) -> PreflightOut:
        return cls(
            id=preflight.id,
            created_at=int(preflight.created_at.timestamp()),
            started_at=seconds(preflight.started_at),
            finished_at=seconds(preflight.finished_at),
            status=cast(Status, preflight.status),
            progress=Progress(**preflight.progress) if preflight.progress else None,
            model=preflight.model,
            training_file=preflight.training_file,
            validation_file=preflight.validation_file,
            seed=preflight.seed,
            error=JobErrorOut(**preflight.error) if preflight.error else None,
            report=preflight.report,
        )


class PreflightList(Listed[PreflightOut]):
    @classmethod
    def of(cls, page: Page[Preflight]) -> PreflightList:
        return cls.holding([PreflightOut.of(row) for row in page.rows], page.has_more)
