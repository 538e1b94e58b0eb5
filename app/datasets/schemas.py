"""Data sets on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Field

from app.datasets.models import Dataset, DatasetSource, Status
from app.errors import BadRequest
from app.jobs.models import Job
from app.jobs.schemas import JobErrorOut
from app.pagination import MAX_CURSOR, Listed, Page
from app.wire import Metadata, Wire, seconds
from graders.code.spec import check_function
from graders.types import GraderInvalid
from methods.rows import MAX_TRAIN_ROWS

Format = Literal["reinforcement", "supervised", "dpo"]
Said = Literal["reward", "correction", "reference"]
MAX_SOURCE = 256 * 1024
"""Characters of a redaction function: as many as a `python` grader may have."""
LAST_SECOND = 253_402_300_799
"""Of the year 9999: Postgres and Python know later times, JSON of other clients may not."""
Moment = Annotated[int, Field(ge=0, le=LAST_SECOND)]
Reward = Annotated[float, Field(ge=0, le=1)]


class Filter(Wire):
    """Which stored completions are looked at. What is left out filters nothing."""

    model: str | None = Field(default=None, max_length=256, description="The model that wrote them.")
    metadata: Metadata | None = Field(default=None, description="Pairs that they all carry.")
    created_after: Moment | None = Field(default=None, description="In seconds since 1970, included.")
    created_before: Moment | None = Field(default=None, description="In seconds since 1970, not included.")
    feedback: list[Said] | None = Field(
        default=None, min_length=1, max_length=3, description="At least one of these was said of them."
    )
    min_reward: Reward | None = Field(default=None, description="A choice has at least this mean reward.")
    max_reward: Reward | None = Field(default=None, description="A choice has at most this mean reward.")


class DatasetCreate(Wire):
    """Which completions become rows, and how."""

    format: Format
    filter: Filter = Filter()
    references: bool = Field(
        default=True,
        description="Of `reinforcement`: whether rows carry the true answer as `reference`; prompts without"
        " one are then left out.",
    )
    dedupe: Literal["none", "exact", "near"] = Field(
        default="near", description="Which repeated prompts are left out; `near` takes out exact ones too."
    )
    validation_file: str | None = Field(
        default=None, min_length=1, max_length=MAX_CURSOR, description="No row has a prompt of this file."
    )
    on_leak: Literal["drop", "fail"] = Field(
        default="drop", description="What happens to rows with a prompt of the validation file."
    )
    redact: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE)] | None = Field(
        default=None,
        description="Python with a function `redact(row)`, run in the sandbox on each row before it is"
        " written. It returns the row, or None to leave it out.",
    )
    max_rows: int = Field(default=MAX_TRAIN_ROWS, ge=1, le=MAX_TRAIN_ROWS, description="The newest stay.")
    filename: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\w.-]+\.jsonl$")
    metadata: Metadata | None = None

    def check(self) -> None:
        """Raises `BadRequest` for what contradicts itself."""
        wanted = self.filter
        least, most = wanted.min_reward, wanted.max_reward
        if least is not None and most is not None and least > most:
            raise _contradicts("filter.min_reward", "it is above 'filter.max_reward'")
        after, before = wanted.created_after, wanted.created_before
        if after is not None and before is not None and after >= before:
            raise _contradicts("filter.created_after", "it is not before 'filter.created_before'")
        if self.on_leak == "fail" and self.validation_file is None:
            raise _contradicts("on_leak", "there is no 'validation_file'")
        if self.redact is not None:
            _check_redaction(self.redact)


def _check_redaction(source: str) -> None:
    """Raises `BadRequest` for what is no Python with a function `redact(row)`. Nothing of it is run."""
    try:
        check_function(source, "redact", ("row",))
    except GraderInvalid as fault:
        told = f"Invalid value for 'redact': {fault}"
        raise BadRequest(told, param="redact", code=fault.code) from None


def _contradicts(param: str, why: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{param}': {why}.", param=param, code="invalid_value")


class ProgressOut(BaseModel):
    """What a worker is doing, and how far it is."""

    phase: str
    done: int
    total: int


class TrainedJob(BaseModel):
    """A job that the data set's file trains."""

    id: str
    status: str
    model: str
    fine_tuned_model: str | None


class DatasetOut(BaseModel):
    """A data set. Its file is an ordinary one with the purpose `fine-tune`."""

    object: Literal["dataset"] = "dataset"
    id: str
    created_at: int
    started_at: int | None
    finished_at: int | None
    status: Status
    progress: ProgressOut | None
    format: Format
    request: dict[str, Any] = Field(description="As it was asked for, defaults filled in.")
    file_id: str | None = Field(description="The file that was made; it may be deleted by now.")
    report: dict[str, Any] | None = Field(description="docs/flywheel.md says what is in it.")
    jobs: list[TrainedJob] = Field(description="The jobs that train on the file.")
    error: JobErrorOut | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, row: Dataset, jobs: Sequence[Job] = ()) -> DatasetOut:
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            started_at=seconds(row.started_at),
            finished_at=seconds(row.finished_at),
            status=cast(Status, row.status),
            progress=ProgressOut(**row.progress) if row.progress else None,
            format=row.request["format"],
            request=row.request,
            file_id=row.file_id,
            report=row.report,
            jobs=[
                TrainedJob(
                    id=job.id, status=job.status, model=job.model, fine_tuned_model=job.fine_tuned_model
                )
                for job in jobs
            ],
            error=JobErrorOut(**row.error) if row.error else None,
            metadata=row.request["metadata"] or {},
        )


class DatasetList(Listed[DatasetOut]):
    pass


class SourceOut(BaseModel):
    """Where a part of a row came from."""

    part: Literal["prompt", "preferred", "non_preferred"]
    completion_id: str
    choice: int
    model: str
    feedback_ids: list[str]


class DatasetRowOut(BaseModel):
    """Where one row of a data set came from. It holds no text of the row."""

    object: Literal["dataset.row"] = "dataset.row"
    id: str
    line: int
    sources: list[SourceOut]


class DatasetRowList(Listed[DatasetRowOut]):
    @classmethod
    def of(cls, page: Page[Sequence[DatasetSource]]) -> DatasetRowList:
        rows = [
            DatasetRowOut(
                id=str(sources[0].line), line=sources[0].line, sources=[_source(s) for s in sources]
            )
            for sources in page.rows
        ]
        return cls.holding(rows, page.has_more)


def _source(row: DatasetSource) -> SourceOut:
    return SourceOut(
        part=cast(Any, row.part),
        completion_id=row.completion_id,
        choice=row.choice,
        model=row.model,
        feedback_ids=row.feedback_ids,
    )
