"""A stored completion as the grader of its job has seen it."""

from __future__ import annotations

from typing import Any

from app.rollouts.models import Rollout
from graders import Sample


def written(rollout: Rollout) -> list[dict[str, Any]]:
    """Returns the assistant's messages of a completion; none of one that was not taken apart."""
    messages = rollout.episode["messages"] if rollout.episode else []
    return [message for message in (*messages, rollout.message or {}) if message.get("role") == "assistant"]


def sample_of(rollout: Rollout) -> Sample:
    """Returns a completion as graders see one."""
    messages = rollout.episode["messages"] if rollout.episode else []
    turns = written(rollout)
    if not turns:
        return Sample(rollout.text, rollout.finish_reason, output_tokens=rollout.tokens)
    last = turns[-1]
    return Sample(
        last["content"],
        rollout.finish_reason,
        last.get("tool_calls", ()),
        output_tokens=rollout.tokens,
        output_thoughts=last.get("reasoning_content"),
        raw_text=rollout.text,
        messages=messages,
        trace_id=rollout.episode["trace_id"] if rollout.episode else "",
        environment_reward=rollout.episode.get("reward") if rollout.episode else None,
    )
