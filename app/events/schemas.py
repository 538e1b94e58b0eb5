"""Events and per-step metrics on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from app.events.models import JobEvent, JobMetrics
from app.pagination import Page


class EventOut(BaseModel):
    """One line of a job's log; metrics events carry their numbers in `data`."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    id: str
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: JobEvent) -> EventOut:
        return cls(
            id=event.id,
            created_at=int(event.created_at.timestamp()),
            level=event.level,
            message=event.message,
            type=event.type,
            data=event.data,
        )


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventOut]
    has_more: bool

    @classmethod
    def of(cls, page: Page[JobEvent]) -> EventList:
        return cls(data=[EventOut.of(event) for event in page.rows], has_more=page.has_more)


class StepMetricsOut(BaseModel):
    """The numbers of one step (docs/metrics.md)."""

    object: Literal["fine_tuning.job.step_metrics"] = "fine_tuning.job.step_metrics"
    id: str
    step: int
    epoch: int
    created_at: int
    values: dict[str, Any]

    @classmethod
    def of(cls, row: JobMetrics) -> StepMetricsOut:
        return cls(
            id=str(row.step),
            step=row.step,
            epoch=row.epoch,
            created_at=int(row.created_at.timestamp()),
            values=row.values,
        )


class StepMetricsList(BaseModel):
    object: Literal["list"] = "list"
    data: list[StepMetricsOut]
    has_more: bool

    @classmethod
    def of(cls, page: Page[JobMetrics]) -> StepMetricsList:
        return cls(data=[StepMetricsOut.of(row) for row in page.rows], has_more=page.has_more)
