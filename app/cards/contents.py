"""Puts a job's card together from its rows: the same rows of which everything else of the job is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cards.canonical import digest
from app.cards.curves import curves, thinned
from app.cards.points import Point, points
from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent
from app.files.models import File
from app.grading.headers import MASK, masked
from app.jobs.models import Job
from app.wire import seconds
from methods.halving import arm_seeds

FORMAT = "cherry.run_card.v1"
OF_ONE_MACHINE = ("model_path", "origin_path")
"""Fields of a config that say where something lies, and not what it is."""
FILES = ("training_file", "validation_file", "canary_file")
BUDGETS = ("max_steps", "max_seconds", "max_sampled_tokens", "max_judge_calls", "max_cost", "on_budget")
ACTION = "action-"
"""Keys of events that tell what the guard did begin so."""


def contents(db: Session, job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the card of a job as it is now. `facts` are what its runs have noted."""
    measured = points(db, job)
    return {
        "format": FORMAT,
        "made_at": seconds(datetime.now(UTC)),
        "made_by": f"cherry {version('cherry-rft')}",
        "job": _job(job),
        "verdict": {"sentence": sentence(job, measured), "measured": job.verdict},
        "delivered": _delivered(measured),
        "data": facts.get("data") or _data(db, job),
        "grader": _grader(job, "grader"),
        "gold_grader": _grader(job, "gold_grader"),
        "base_model": facts.get("base_model"),
        "config": _config(job),
        "seeds": arm_seeds(job.seed, (job.config or {}).get("n_seeds", 1)),
        "attempts": facts.get("attempts", []),
        "checkpoints": _checkpoints(measured),
        "curves": curves(db, job),
        "guard": _guard(db, job),
        "controls": (job.verdict or {}).get("controls"),
        "budgets": {name: (job.config or {})[name] for name in BUDGETS if name in (job.config or {})},
        "usage": {**(job.usage_metrics or {}), "steps": job.last_step, "trained_tokens": job.trained_tokens},
    }


def sentence(job: Job, measured: Sequence[Point]) -> str:
    """Returns what became of the job, in one sentence."""
    if job.status != "succeeded":
        return _unfinished(job)
    told = (job.verdict or {}).get("sentence")
    if told:
        return str(told)
    delivered = next((point for point in measured if point.is_delivered), None)
    if delivered is None:
        return "The job has succeeded; the model that it delivered is not there any more."
    if delivered.checkpoint.step == 0:
        return "No checkpoint is proven better than the base: the base is delivered."
    where = f"The checkpoint of step {delivered.checkpoint.step} is delivered"
    if delivered.gain is None:
        return f"{where}; nothing was measured that compares it with the base."
    rows = "training" if delivered.basis == "training" else "validation"
    return f"{where}; its reward on the {rows} rows is {delivered.gain:+.3f} over the base's."


def _unfinished(job: Job) -> str:
    if job.status == "failed":
        error = job.error or {}
        return f"The job has failed ({error.get('code')}): it delivers no model."
    if job.status == "cancelled":
        return f"The job was cancelled after step {job.last_step}: it delivers no model."
    return f"The job is not over: it is {job.status.replace('_', ' ')}, at step {job.last_step}."


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "method": job.method["type"],
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model,
        "suffix": job.suffix,
        "resources": job.resources,
        "created_at": seconds(job.created_at),
        "started_at": seconds(job.started_at),
        "finished_at": seconds(job.finished_at),
        "error": {"code": job.error["code"], "param": job.error["param"]} if job.error else None,
    }


def _data(db: Session, job: Job) -> dict[str, Any]:
    """Returns what is known of the files of a job that no training has read."""
    named = {name: getattr(job, name) for name in FILES}
    found = {param: db.get(File, file_id) for param, file_id in named.items() if file_id}
    unread = {"rows": None, "rows_sha256": None}
    return {
        param: {"name": file.shown, "sha256": file.sha256, **unread}
        if file
        else {"name": named[param], "sha256": None, **unread}
        for param, file in found.items()
    }


def _config(job: Job) -> dict[str, Any] | None:
    if job.config is None:
        return None
    return {name: value for name, value in job.config.items() if name not in OF_ONE_MACHINE}


def _grader(job: Job, name: str) -> dict[str, Any] | None:
    """Returns a grader without secrets, and the hash of that; None where the job has none of that name."""
    if job.method["type"] != "reinforcement" or name not in job.method["reinforcement"]:
        return None
    shown = without_queries(masked(job.method["reinforcement"][name]))
    return {"spec": shown, "sha256": digest(shown)}


def without_queries(spec: Any) -> Any:
    """Returns a grader with the query of each address masked: a card is shown to others, and servers are
    given keys there."""
    if isinstance(spec, Mapping):
        return {
            name: _address(value) if name in ("url", "base_url") else without_queries(value)
            for name, value in spec.items()
        }
    if isinstance(spec, list):
        return [without_queries(each) for each in spec]
    return spec


def _address(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    _, at, host = parts.netloc.rpartition("@")
    kept = parts._replace(netloc=f"{MASK}@{host}" if at else host, query=MASK if parts.query else "")
    return urlunsplit(kept)


def _delivered(measured: Sequence[Point]) -> dict[str, Any] | None:
    for point in measured:
        if point.is_delivered:
            checkpoint = point.checkpoint
            return {
                "step": checkpoint.step,
                "checkpoint_id": checkpoint.id,
                "files": files_of(checkpoint),
                "served": _served(checkpoint.trust or {}),
                "loaded": _loaded(checkpoint.trust or {}),
            }
    return None


def _served(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns how the delivered model, loaded as it is served, compares with the trainer; None unchecked."""
    if "served_difference" not in measured:
        return None
    return {
        "largest_difference": measured["served_difference"],
        "tolerance": measured["served_tolerance"],
        "tokens": measured["served_tokens"],
        "unit": "nats",
    }


def _loaded(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns how the delivered model, loaded in its weights' dtype, compares with what was validated."""
    if "load_difference" not in measured:
        return None
    return {
        "dtype": measured["load_dtype"],
        "largest_difference": measured["load_difference"],
        "kl": measured["load_kl"],
        "tokens": measured["load_tokens"],
        "unit": "nats",
    }


def _checkpoints(measured: Sequence[Point]) -> list[dict[str, Any]]:
    """Returns every checkpoint that can be downloaded and the base; of the others at most `MOST_POINTS`."""
    dropped = [point.checkpoint.step for point in measured if not _stays(point)]
    shown = set(thinned(dropped))
    return [_checkpoint(each) for each in measured if _stays(each) or each.checkpoint.step in shown]


def _stays(point: Point) -> bool:
    return point.checkpoint.step == 0 or point.checkpoint.storage_key is not None


def _checkpoint(point: Point) -> dict[str, Any]:
    row = point.checkpoint
    found = {
        "step": row.step,
        "epoch": row.epoch,
        "id": row.id,
        "name": row.model_name,
        "kept": row.storage_key is not None,
        "delivered": point.is_delivered,
        "on_frontier": point.on_frontier,
        "kl": row.kl,
        "kl_interval": list(point.kl),
        "valid_reward": row.valid_reward,
        "valid_reward_stderr": row.valid_reward_stderr,
        "gain": point.gain,
        "gain_interval": list(point.gain_interval),
        "p": point.p,
        "basis": point.basis,
        "measured": row.trust or {},
        "manifest_sha256": digest(row.manifest),
    }
    return found | ({"files": files_of(row)} if row.storage_key else {})


def files_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Returns the SHA-256 of each file of a checkpoint, by its path in a download."""
    return {name: facts["sha256"] for name, facts in checkpoint.manifest["files"].items()}


def _guard(db: Session, job: Job) -> dict[str, Any]:
    acted = select(JobEvent).where(
        JobEvent.job_id == job.id, JobEvent.key.startswith(ACTION, autoescape=True)
    )
    rows = thinned(db.scalars(acted.order_by(JobEvent.seq)).all())
    actions = [
        {"event": row.seq, "at": seconds(row.created_at), "said": row.message} | row.data for row in rows
    ]
    return {"mode": (job.config or {}).get("guard"), "actions": actions}
