"""Grades on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.pagination import Listed, Page
from app.rollouts.models import Rollout
from app.rollouts.rows import RowEpochs
from app.rollouts.service import cursor_of

LINE = "Its line in the file, from 1, where the file has no blank lines: `row` counts from 0."


class FailureOut(BaseModel):
    kind: str
    message: str


class EpisodeOut(BaseModel):
    """What followed the row's messages: turns of the policy, and what tools and users replied."""

    trace_id: str
    messages: list[dict[str, Any]]
    """In the chat form; of the policy's with `tokens`, of a tool's with `seconds`, `tokens`, `is_error`."""
    reward: float | None = Field(
        default=None,
        description="How a named environment judges it; left out otherwise.",
        exclude_if=lambda value: value is None,
    )


class RolloutOut(BaseModel):
    """One completion and its grade: a reward, or the reason why there is none."""

    object: Literal["fine_tuning.job.rollout"] = "fine_tuning.job.rollout"
    id: str
    split: str
    step: int
    epoch: int
    row: int
    line: int = Field(description=LINE)
    sample: int
    text: str
    tokens: int
    finish_reason: str
    reward: float | None
    failure: FailureOut | None
    parts: dict[str, Any]
    reason: str
    part_failures: dict[str, FailureOut] | None = Field(
        default=None,
        description="Parts that have failed, such as sub-graders, by name; left out where none has.",
        exclude_if=lambda value: value is None,
    )
    message: dict[str, Any] | None = Field(
        default=None,
        description="Answer, thoughts (`reasoning_content`, `reasoning_tokens`) and calls, in the chat form;"
        " left out where the text is all answer.",
        exclude_if=lambda value: value is None,
    )
    episode: EpisodeOut | None = Field(
        default=None,
        description="Of jobs with tools or an environment; left out otherwise.",
        exclude_if=lambda value: value is None,
    )
    sampled_by: str | None = Field(
        default=None,
        description="The weights that wrote it, by run and number of updates, where a vLLM server sampled;"
        " left out otherwise.",
        exclude_if=lambda value: value is None,
    )

    @classmethod
    def of(cls, rollout: Rollout) -> RolloutOut:
        failure = None
        if rollout.failure is not None:
            failure = FailureOut(kind=rollout.failure, message=rollout.failure_message or "")
        return cls(
            id=cursor_of(rollout),
            split=rollout.split,
            step=rollout.step,
            epoch=rollout.epoch,
            row=rollout.row,
            line=rollout.row + 1,
            sample=rollout.sample,
            text=rollout.text,
            tokens=rollout.tokens,
            finish_reason=rollout.finish_reason,
            reward=rollout.reward,
            failure=failure,
            parts=rollout.parts,
            reason=rollout.reason,
            part_failures={name: FailureOut(**one) for name, one in (rollout.part_failures or {}).items()}
            or None,
            message=rollout.message,
            episode=EpisodeOut(**rollout.episode) if rollout.episode else None,
            sampled_by=rollout.sampled_by,
        )


class RolloutList(Listed[RolloutOut]):
    @classmethod
    def of(cls, page: Page[Rollout]) -> RolloutList:
        return cls.holding([RolloutOut.of(rollout) for rollout in page.rows], page.has_more)


class RowEpochOut(BaseModel):
    """What one epoch's completions of a row were worth."""

    epoch: int
    mean_reward: float | None
    n: int
    failed: int
    right_share: float | None
    wrong_share: float | None


class RowOut(BaseModel):
    """A row of the training data, and how it fared in each epoch that visited it."""

    object: Literal["fine_tuning.job.row"] = "fine_tuning.job.row"
    id: str
    row: int
    line: int = Field(description=LINE)
    epochs: list[RowEpochOut]


class RowList(Listed[RowOut]):
    @classmethod
    def of(cls, page: Page[RowEpochs]) -> RowList:
        rows = [
            RowOut(
                id=str(row), row=row, line=row + 1, epochs=[RowEpochOut(**each._asdict()) for each in epochs]
            )
            for row, epochs in page.rows
        ]
        return cls.holding(rows, page.has_more)
