"""Checkpoints on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.checkpoints.models import Checkpoint
from app.events.rft_metrics import reward_numbers, with_errors
from app.events.tuning_metrics import tuning_numbers
from app.exports.schemas import FormOut
from app.pagination import Listed, Page
from methods import metrics as names


class CheckpointOut(BaseModel):
    """A kept checkpoint. `metrics` holds only what was measured; an error that is not known is null."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    id: str
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]
    trust: dict[str, Any] | None = Field(
        default=None,
        description="Cherry: the gain's adjusted p and bounds, the rows that it was measured on, and more.",
        exclude_if=lambda value: value is None,
        json_schema_extra={"x-cherry": True},
    )

    downloads: list[FormOut] = Field(
        description="Cherry: the forms in which the checkpoint can be downloaded, and lines that use them.",
        json_schema_extra={"x-cherry": True},
    )

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, name: str, values: Mapping[str, Any], downloads: list[FormOut]
    ) -> CheckpointOut:
        return cls(
            id=checkpoint.id,
            created_at=int(checkpoint.created_at.timestamp()),
            fine_tuning_job_id=checkpoint.job_id,
            fine_tuned_model_checkpoint=name,
            step_number=checkpoint.step,
            metrics=_metrics(checkpoint, values),
            trust=checkpoint.trust,
            downloads=downloads,
        )


class CheckpointList(Listed[CheckpointOut]):
    @classmethod
    def of(
        cls,
        page: Page[Checkpoint],
        names: Mapping[str, str],
        values: Mapping[str, Mapping[str, Any]],
        downloads: Mapping[str, list[FormOut]],
    ) -> CheckpointList:
        """`names` holds those that differ from the checkpoint's own: the delivered one has the tuned
        model's name, as at OpenAI."""
        data = [
            CheckpointOut.of(row, names.get(row.id, row.model_name), values[row.id], downloads[row.id])
            for row in page.rows
        ]
        return cls.holding(data, page.has_more)


def _metrics(checkpoint: Checkpoint, values: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns OpenAI's numbers, rewards in both spellings or losses, and ours: KL, and rewards' errors."""
    own: dict[str, float | None] = {
        "full_valid_mean_reward": checkpoint.valid_reward,
        "valid_reward_mean": checkpoint.valid_reward,
        "valid_reward_stderr": checkpoint.valid_reward_stderr,
        "advantage_over_base": checkpoint.advantage_over_base,
        "advantage_stderr": checkpoint.advantage_stderr,
        "kl": checkpoint.kl,
        "kl_stderr": checkpoint.kl_stderr,
    }
    measured = with_errors({name: value for name, value in own.items() if value is not None})
    told = tuning_numbers(values) if names.LOSS.format(split="train") in values else reward_numbers(values)
    return {"step": checkpoint.step, **told, **measured}
