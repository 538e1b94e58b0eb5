"""Jobs as lines of a table: how far each is, and what it has got so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import OpenAI

JOB = {
    "id": "ID",
    "status": "Status",
    "method": "Method",
    "model": "Model",
    "suffix": "Suffix",
    "step": "Step",
    "reached": "Reward",
    "fine_tuned_model": "Result",
    "created_at": "Created",
}
NEWEST = 30
"""Events of a job that are looked through for its newest numbers: more than its end adds after them."""
AT_ONCE = 8
REWARDS = ("full_valid_mean_reward", "train_mean_reward")
"""What an event of a step calls rewards, the one that counts most first."""
LOSSES = ("full_valid_loss", "valid_loss", "train_loss")


def with_progress(client: OpenAI, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the jobs with `progress`: step, total_steps, reward and loss, None where that is not known."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda job: progress_of(client, job["id"]), jobs)
        return [{**job, "progress": progress} for job, progress in zip(jobs, found, strict=True)]


def progress_of(client: OpenAI, job_id: str) -> dict[str, Any]:
    """Returns how far a job is, by its newest events; the newest validation counts before training."""
    events = client.fine_tuning.jobs.list_events(job_id, limit=NEWEST).data
    told: list[Mapping[str, Any]] = [
        event.data for event in events if event.type == "metrics" and isinstance(event.data, dict)
    ]
    newest = next((numbers for numbers in told if "step" in numbers), {})
    return {
        "step": newest.get("step"),
        "total_steps": newest.get("total_steps"),
        "reward": _first(told, REWARDS),
        "loss": _first(told, LOSSES),
    }


def _first(told: Sequence[Mapping[str, Any]], names: Sequence[str]) -> float | None:
    """Returns the newest number of the first name that any event has."""
    for name in names:
        for numbers in told:
            if numbers.get(name) is not None:
                return float(numbers[name])
    return None


def as_row(job: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a job's line, by the headings of `JOB`."""
    progress, method = job["progress"], job.get("method") or {}
    step, total = progress["step"], progress["total_steps"]
    return {
        **job,
        "method": method.get("type"),
        "suffix": job.get("user_provided_suffix"),
        "step": "" if step is None else f"{step}/{total}" if total else str(step),
        "reached": _reached(progress),
    }


def _reached(progress: Mapping[str, Any]) -> str:
    if progress["reward"] is not None:
        return f"{progress['reward']:.3g}"
    return "" if progress["loss"] is None else f"loss {progress['loss']:.3g}"
