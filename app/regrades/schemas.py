"""Wire forms of regrades."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from app.grading.headers import masked
from app.jobs.schemas import JobErrorOut
from app.pagination import MAX_NUMBER, Listed, Page
from app.regrades.models import Regrade, RegradeResult, Status
from app.rollouts.service import Split
from app.wire import Metadata, Wire, seconds

Step = Field(default=None, ge=0, le=MAX_NUMBER)
LATEST = 253_402_300_798
"""The last second that a time of Python's can hold, but one."""


class Graders(Wire):
    """What regrades of all kinds say."""

    grader: dict[str, Any] = Field(description="The new grader, of any kind.")
    baseline: dict[str, Any] | None = Field(
        default=None,
        description="Another grader to compare it with, in place of the rewards that are stored.",
    )
    metadata: Metadata | None = None


class JobRegradeCreate(Graders):
    """Which rollouts of a job are graded again; all but those of a control, if nothing is said."""

    split: Split | None = None
    first_step: int | None = Step
    last_step: int | None = Step


class StoredSource(Wire):
    """Which stored chat completions are graded."""

    type: Literal["stored_completions"]
    model: str | None = None
    metadata: Metadata | None = None
    created_after: int | None = Field(default=None, ge=0, le=LATEST)
    created_before: int | None = Field(default=None, ge=0, le=LATEST)
    limit: int | None = Field(default=None, ge=1, le=MAX_NUMBER)


class RegradeCreate(Graders):
    source: StoredSource


class RegradeProgress(BaseModel):
    """How far a regrade is; a phase, `grading` or `comparing`, only while a worker is at it."""

    phase: str | None
    done: int
    total: int | None


class RegradeOut(BaseModel):
    """A regrade. `comparison` is there once it has succeeded."""

    object: Literal["regrade"] = "regrade"
    id: str
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: Status
    job_id: str | None
    source: dict[str, Any]
    grader: dict[str, Any]
    baseline: dict[str, Any] | None
    progress: RegradeProgress
    comparison: dict[str, Any] | None = Field(description="docs/regrades.md says what is in it.")
    error: JobErrorOut | None
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, regrade: Regrade) -> RegradeOut:
        return cls(
            id=regrade.id,
            created_at=int(regrade.created_at.timestamp()),
            started_at=seconds(regrade.started_at),
            finished_at=seconds(regrade.finished_at),
            status=cast(Status, regrade.status),
            job_id=regrade.job_id,
            source=regrade.source,
            grader=masked(regrade.grader),
            baseline=masked(regrade.baseline) if regrade.baseline else None,
            progress=RegradeProgress(
                phase=(regrade.progress or {}).get("phase"), done=regrade.done, total=regrade.total
            ),
            comparison=regrade.comparison,
            error=JobErrorOut(**regrade.error) if regrade.error else None,
            metadata=regrade.meta,
        )


class RegradeList(Listed[RegradeOut]):
    @classmethod
    def of(cls, page: Page[Regrade]) -> RegradeList:
        return cls.holding([RegradeOut.of(row) for row in page.rows], page.has_more)


class GivenOut(BaseModel):
    """What a grader gave: a reward, or the failure that left none."""

    reward: float | None
    failure: str | None


class NewGradeOut(GivenOut):
    failure_message: str | None
    parts: dict[str, Any]
    reason: str


class ResultOut(BaseModel):
    """A completion with both grades."""

    object: Literal["regrade.result"] = "regrade.result"
    id: str
    completion: str = Field(description="The id of the rollout, or of the stored completion and its choice.")
    text: str | None = Field(description="What was graded; null where it is gone.")
    before: GivenOut | None = Field(description="Null where there was no grade, and no baseline.")
    after: NewGradeOut
    difference: float | None = Field(description="After minus before, each as a share of its grader's range.")

    @classmethod
    def of(cls, result: RegradeResult, text: str | None) -> ResultOut:
        had = result.reward_before is not None or result.failure_before is not None
        before = GivenOut(reward=result.reward_before, failure=result.failure_before)
        return cls(
            id=str(result.seq),
            completion=result.ref,
            text=text,
            before=before if had else None,
            after=NewGradeOut(
                reward=result.reward,
                failure=result.failure,
                failure_message=result.failure_message,
                parts=result.parts,
                reason=result.reason,
            ),
            difference=result.difference,
        )


class ResultList(Listed[ResultOut]):
    pass
