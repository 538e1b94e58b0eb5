"""Names of events, as the official client has them, and ours."""

from __future__ import annotations

from typing import Literal, get_args

OpenAIEventType = Literal[
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "eval.run.succeeded",
    "eval.run.failed",
    "eval.run.canceled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "realtime.call.incoming",
    "video.completed",
    "video.failed",
    "agent.environment.ready",
    "agent.environment.failed",
    "agent.environment.suspended",
    "agent.environment.expired",
    "agent.session.created",
    "agent.session.action_required",
    "agent.session.in_progress",
    "agent.session.idle",
    "agent.session.failed",
    "safety.alert.created",
]
"""Each of these may be asked for; only those that docs/webhooks.md names are ever sent."""
CherryEventType = Literal["fine_tuning.job.paused", "fine_tuning.checkpoint.created"]
EventType = Literal[OpenAIEventType, CherryEventType]

EVENT_TYPES: tuple[str, ...] = get_args(OpenAIEventType) + get_args(CherryEventType)
