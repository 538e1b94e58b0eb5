"""Cards, their keys and frontiers on the wire."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.cards.models import CardKey
from app.cards.points import Point
from app.jobs.models import Job
from app.pagination import Listed


class CardSignature(BaseModel):
    algorithm: Literal["ed25519"]
    key_id: str
    value: str = Field(description="Base64 of the signature over the canonical form of card and hash.")


class CardOut(BaseModel):
    """A run card (docs/cards.md). What is signed is `card` and `markdown_sha256`."""

    object: Literal["fine_tuning.job.card"] = "fine_tuning.job.card"
    card: dict[str, Any]
    markdown_sha256: str
    signature: CardSignature | None
    unsigned_reason: str | None


class CardKeyOut(BaseModel):
    """A public key of this service's cards."""

    object: Literal["card_key"] = "card_key"
    id: str
    algorithm: str
    public_key: str = Field(description="Base64 of its 32 bytes.")
    created_at: int
    retired_at: int | None = Field(description="When another took its place; null of the one that signs.")

    @classmethod
    def of(cls, key: CardKey) -> CardKeyOut:
        return cls(
            id=key.id,
            algorithm=key.algorithm,
            public_key=base64.b64encode(key.public_key).decode(),
            created_at=int(key.created_at.timestamp()),
            retired_at=int(key.retired_at.timestamp()) if key.retired_at else None,
        )


class CardKeyList(Listed[CardKeyOut]):
    @classmethod
    def of(cls, keys: Sequence[CardKey]) -> CardKeyList:
        return cls.holding([CardKeyOut.of(key) for key in keys], has_more=False)


class FrontierPoint(BaseModel):
    """One checkpoint: what it is away from the base, and what it has gained.

    The interval of its KL is of 95 %. Each bound of its gain holds with 95 % over all looks of the job where
    `p` is known; else the two are the 95 % interval of this checkpoint alone.
    """

    step: int
    checkpoint_id: str
    fine_tuned_model_checkpoint: str
    kl: float = Field(description="Nats per token to the base, on the fixed probe set.")
    kl_low: float | None
    kl_high: float | None
    reward: float | None
    reward_over_base: float | None
    reward_over_base_low: float | None
    reward_over_base_high: float | None
    p: float | None = Field(description='Of "no better than the base", adjusted for all looks of the job.')
    basis: str | None = Field(description="The rows that were looked at: `unseen` or `training`.")
    on_frontier: bool
    delivered: bool
    kept: bool

    @classmethod
    def of(cls, point: Point, tuned: str | None) -> FrontierPoint:
        """`tuned` is the name of the job's model, which the delivered checkpoint has."""
        row = point.checkpoint
        name = tuned if point.is_delivered and tuned else row.model_name
        return cls(
            step=row.step,
            checkpoint_id=row.id,
            fine_tuned_model_checkpoint=name,
            kl=row.kl,
            kl_low=point.kl.low,
            kl_high=point.kl.high,
            reward=row.valid_reward if row.valid_reward is not None else (row.trust or {}).get("reward"),
            reward_over_base=point.gain,
            reward_over_base_low=point.gain_interval.low,
            reward_over_base_high=point.gain_interval.high,
            p=point.p,
            basis=point.basis,
            on_frontier=point.on_frontier,
            delivered=point.is_delivered,
            kept=row.storage_key is not None,
        )


class Frontier(BaseModel):
    """Reward against KL of all checkpoints of a job, lowest step first; step 0 is the untouched base."""

    object: Literal["fine_tuning.job.frontier"] = "fine_tuning.job.frontier"
    fine_tuning_job_id: str
    points: list[FrontierPoint]

    @classmethod
    def holding(cls, job: Job, points: Sequence[Point]) -> Frontier:
        return cls(
            fine_tuning_job_id=job.id,
            points=[FrontierPoint.of(point, job.fine_tuned_model) for point in points],
        )
