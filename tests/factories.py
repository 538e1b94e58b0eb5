"""Rows for tests, from plain functions. Each flushes; the test commits what others should see."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from app.chat import service as chats
from app.chat.completion import Frame, whole_completion
from app.chat.models import StoredChat
from app.checkpoints.models import Checkpoint
from app.datasets.models import Dataset, DatasetSource
from app.datasets.schemas import DatasetCreate
from app.erasures.models import Erasure
from app.evals.models import Eval, EvalOutputItem, EvalRun
from app.evals.service import whole_schema
from app.events.models import JobMetrics
from app.exports.models import Export
from app.feedback.models import Feedback
from app.files import service as files
from app.files.models import File
from app.ids import random_id
from app.inference.reply import Choice, Piece, Usage
from app.jobs.models import Job
from app.models.models import Model
from app.permissions.models import CheckpointPermission
from app.preflights.models import Preflight
from app.regrades.models import Regrade
from app.responses import service as responses
from app.responses.models import StoredResponse
from app.responses.output import Output
from app.responses.response import finished, new_response
from app.responses.schemas import ResponseCreate
from app.rollouts.models import Rollout
from app.sealing import Sealer
from app.settings import get_settings
from app.storage import get_storage
from app.tenants import service as tenants
from app.uploads import service as uploads
from app.uploads.models import Upload
from app.uploads.schemas import UploadCreate
from app.webhooks import service as webhooks
from app.webhooks.event_types import EventType
from app.webhooks.models import WebhookEndpoint
from workers.training.folders import publish

GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
AUTO = {
    "batch_size": "auto",
    "learning_rate_multiplier": "auto",
    "n_epochs": "auto",
    "eval_interval": "auto",
    "eval_samples": "auto",
    "compute_multiplier": "auto",
    "reasoning_effort": "default",
}
ROWS = b'{"messages": [{"role": "user", "content": "Say a"}], "answer": "a"}\n' * 3
STEP_VALUES = {
    "reward/mean": 0.421,
    "reward/valid_mean": 0.68,
    "grades/train_count": 64.0,
    "grades/valid_count": 10.0,
    "grades/valid_parse_error_share": 0.1,
    "grades/train_ungraded_share": 0.0,
    "failures/valid/sample_parse_error": 1.0,
    "completion/train_tokens_mean": 12.5,
    "kl/probe_mean": 0.01,
    "kl/probe_stderr": 0.002,
    "time/sampling": 1.5,
    "time/step": 2.0,
}


class Tenant(NamedTuple):
    """A project with a key."""

    organization_id: str
    project_id: str
    key: str
    key_id: str


def make_tenant(db: Session, name: str = "acme", key: str | None = None) -> Tenant:
    organization = tenants.create_organization(db, name)
    project = tenants.create_project(db, organization.id, f"{name} project")
    made = tenants.create_key(db, project.id, "test key", plaintext=key)
    return Tenant(organization.id, project.id, made.plaintext, made.row.id)


def make_admin_key(db: Session, organization_id: str) -> str:
    return tenants.create_admin_key(db, organization_id, "admin").plaintext


def make_model(db: Session, name: str = "cherry-nano", folder: Path | str = "models/cherry-nano") -> Model:
    """A base model whose folder nobody reads."""
    model = Model(id=random_id("model_"), name=name, folder=str(folder))
    db.add(model)
    db.flush()
    return model


def make_tuned_model(db: Session, job: Job, name: str = "ft:cherry-nano:acme:x:AbCd1234") -> Model:
    model = Model(
        id=random_id("model_"),
        name=name,
        project_id=job.project_id,
        base=job.model,
        storage_key=f"jobs/{job.id}/checkpoints/1-1",
        job_id=job.id,
    )
    db.add(model)
    db.flush()
    return model


def make_file(
    db: Session, project_id: str, data: bytes = ROWS, *, purpose: str = "fine-tune", name: str = "train.jsonl"
) -> File:
    """A file with its bytes in the storage of this process."""
    stored = files.store_bytes(files.reserve(db), data)
    return files.create(db, project_id, stored, filename=name, purpose=purpose)


def make_stored_chat(
    db: Session,
    project_id: str,
    model: str = "cherry-nano",
    *,
    asked: str = "Hello",
    answers: Sequence[str] = ("Hi.",),
    finish_reason: str = "stop",
    metadata: Mapping[str, str] = MappingProxyType({"a": "1"}),
    keep: timedelta = timedelta(hours=1),
) -> StoredChat:
    """A completion of one message, stored for an hour."""
    choices = [Choice(answer, [], finish_reason) for answer in answers]
    completion = whole_completion(Frame.of(model), choices, Usage(5, 2))
    messages = [{"role": "user", "content": asked}]
    chats.store(db, project_id, completion, messages, metadata=metadata, keep=keep)
    return db.get_one(StoredChat, completion["id"])


def make_feedback(db: Session, completion: StoredChat, *, choice: int = 0, **said: Any) -> Feedback:
    """What somebody says of a stored completion."""
    row = Feedback(
        id=random_id("fdbk_"),
        project_id=completion.project_id,
        completion_id=completion.id,
        choice=choice,
        key_id="key_test",
        **(said or {"reward": 1.0}),
    )
    db.add(row)
    db.flush()
    return row


def make_dataset(
    db: Session, project_id: str, asked: Mapping[str, Any] | None = None, **columns: Any
) -> Dataset:
    """A data set that waits."""
    request = DatasetCreate(**{"format": "supervised"} | dict(asked or {})).model_dump()
    row = Dataset(id=random_id("dataset-"), project_id=project_id, request=request, **columns)
    db.add(row)
    db.flush()
    return row


def make_source(db: Session, dataset: Dataset, completion_id: str, line: int = 1) -> DatasetSource:
    source = DatasetSource(
        dataset_id=dataset.id,
        line=line,
        part="prompt",
        completion_id=completion_id,
        choice=0,
        model="cherry-nano",
        feedback_ids=[],
    )
    db.add(source)
    db.flush()
    return source


def make_erasure(db: Session, tenant: Tenant) -> Erasure:
    row = Erasure(
        id=random_id("erase_"),
        organization_id=tenant.organization_id,
        project_id=tenant.project_id,
        cause="request",
        counts={"chat_completions": 1},
        datasets=[],
    )
    db.add(row)
    db.flush()
    return row


def make_stored_response(
    db: Session, project_id: str, previous_response_id: str | None = None, model: str = "cherry-nano"
) -> StoredResponse:
    """A response to one message, stored for an hour."""
    asked = ResponseCreate(model=model, input="Hello", previous_response_id=previous_response_id)
    output = Output()
    list(output.add([Piece(0, "Hi.", None, "stop")]))
    response = finished(new_response(asked, model), output, Usage(5, 2))
    responses.store(db, project_id, response, asked.items(), keep=timedelta(hours=1))
    return responses.get(db, project_id, response["id"])


def make_upload(db: Session, project_id: str, size: int = 3) -> Upload:
    """A pending upload without parts."""
    request = UploadCreate(filename="a.bin", purpose="user_data", bytes=size, mime_type="text/plain")
    return uploads.create(db, project_id, request, max_bytes=size)


def make_job(db: Session, project_id: str, *, status: str = "queued", **columns: Any) -> Job:
    """A job whose files exist only by name unless they are given."""
    block = {"grader": dict(GRADER), "hyperparameters": dict(AUTO)}
    values: dict[str, Any] = {
        "model": "cherry-nano",
        "training_file": "file-train",
        "validation_file": "file-valid",
        "seed": 7,
        "method": {"type": "reinforcement", "reinforcement": block},
    }
    job = Job(id=random_id("ftjob-"), project_id=project_id, status=status, **values | columns)
    db.add(job)
    db.flush()
    return job


def make_preflight(db: Session, project_id: str, *, status: str = "queued", **columns: Any) -> Preflight:
    """A preflight whose files exist only by name unless they are given."""
    block = {"grader": dict(GRADER), "hyperparameters": dict(AUTO)}
    values: dict[str, Any] = {
        "model": "cherry-nano",
        "training_file": "file-train",
        "validation_file": None,
        "seed": 7,
        "method": {"type": "reinforcement", "reinforcement": block},
        "limits": {},
    }
    preflight = Preflight(id=random_id("ftpre-"), project_id=project_id, status=status, **values | columns)
    db.add(preflight)
    db.flush()
    return preflight


def make_regrade(db: Session, job: Job, **columns: Any) -> Regrade:
    """A regrade of all rollouts of a job, by a grader that overlooks case."""
    values: dict[str, Any] = {
        "source": {"type": "rollouts", "split": None, "first_step": None, "last_step": None},
        "grader": {**GRADER, "name": "alike", "operation": "ilike"},
    }
    values |= {"id": random_id("regrade_"), "project_id": job.project_id, "job_id": job.id}
    regrade = Regrade(**values | columns)
    db.add(regrade)
    db.flush()
    return regrade


def make_eval(db: Session, project_id: str, **columns: Any) -> Eval:
    """An eval of one criterion, over rows of any form with samples."""
    values: dict[str, Any] = {
        "name": "letters",
        "data_source_config": {"type": "custom", "schema": whole_schema({}, with_sample=True)},
        "testing_criteria": [{"id": "same-1", **GRADER}],
    }
    row = Eval(id=random_id("eval_"), project_id=project_id, **values | columns)
    db.add(row)
    db.flush()
    return row


def make_eval_run(db: Session, of: Eval, content: Sequence[dict[str, Any]] = (), **columns: Any) -> EvalRun:
    """A run over rows that bring their answers."""
    source = {"type": "jsonl", "source": {"type": "file_content", "content": list(content)}}
    values: dict[str, Any] = {"name": "a run", "data_source": source}
    run = EvalRun(id=random_id("evalrun_"), eval_id=of.id, project_id=of.project_id, **values | columns)
    db.add(run)
    db.flush()
    return run


def make_output_item(db: Session, run: EvalRun, seq: int = 1, **columns: Any) -> EvalOutputItem:
    """An item that was judged and has passed."""
    result = {"name": "same-1", "type": "string_check", "score": 1.0, "passed": True}
    values: dict[str, Any] = {
        "status": "pass",
        "datasource_item": {"answer": "a"},
        "results": [result],
        "sample": {},
    }
    item = EvalOutputItem(
        id=random_id("outputitem_"), run_id=run.id, seq=seq, datasource_item_id=seq - 1, **values | columns
    )
    db.add(item)
    db.flush()
    return item


def make_metrics(db: Session, job: Job, step: int, values: dict[str, Any] | None = None) -> JobMetrics:
    row = JobMetrics(job_id=job.id, step=step, epoch=1, attempt=1, values=values or STEP_VALUES)
    db.add(row)
    db.flush()
    return row


def make_checkpoint(
    db: Session, job: Job, step: int, contents: dict[str, bytes] | None = None, **columns: Any
) -> Checkpoint:
    """A kept checkpoint, with these files in storage if any are given."""
    prefix = f"jobs/{job.id}/checkpoints/{step}-1"
    for name, data in (contents or {}).items():
        get_storage().put_bytes(f"{prefix}/{name}", data)
    sums = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in (contents or {}).items()
    }
    values: dict[str, Any] = {
        "epoch": 1,
        "attempt": 1,
        "model_name": f"ft:cherry-nano:acme::{random_id('', 8)}:ckpt-step-{step}",
        "storage_key": prefix,
        "manifest": {"files": sums},
        "kl": 0.01,
        "kl_stderr": 0.002,
        "valid_reward": 0.68,
        "valid_reward_stderr": 0.02,
    }
    checkpoint = Checkpoint(id=random_id("ftckpt_"), job_id=job.id, step=step, **values | columns)
    db.add(checkpoint)
    db.flush()
    return checkpoint


def make_export(
    db: Session,
    job: Job,
    checkpoint: Checkpoint,
    form: str = "gguf",
    *,
    status: str = "queued",
    **columns: Any,
) -> Export:
    values = {"project_id": job.project_id, "checkpoint_id": checkpoint.id, "format": form, "status": status}
    export = Export(id=random_id("ckptexp_"), **values | columns)
    db.add(export)
    db.flush()
    return export


def store_model(model: Path, key: str) -> None:
    """Stores a model's folder as a run stores a checkpoint: below `model/`, with a manifest."""
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "checkpoint"
        publish(written, lambda partial: _copy(model, partial), {})
        get_storage().publish_folder(written, key)


def _copy(model: Path, checkpoint: Path) -> None:
    shutil.copytree(model, checkpoint / "model")


def make_permission(db: Session, checkpoint: Checkpoint, project_id: str) -> CheckpointPermission:
    permission = CheckpointPermission(id=random_id("cp_"), checkpoint_id=checkpoint.id, project_id=project_id)
    db.add(permission)
    db.flush()
    return permission


def make_rollout(db: Session, job: Job, step: int, row: int, sample: int = 0, **columns: Any) -> Rollout:
    values: dict[str, Any] = {
        "split": "train",
        "epoch": 1,
        "attempt": 1,
        "text": "a",
        "tokens": 2,
        "finish_reason": "stop",
        "reward": 1.0,
        "parts": {},
        "reason": "",
    }
    rollout = Rollout(job_id=job.id, step=step, row=row, sample=sample, **values | columns)
    db.add(rollout)
    db.flush()
    return rollout


def make_webhook_endpoint(
    db: Session,
    project_id: str,
    url: str = "https://1.1.1.1/",
    types: tuple[EventType, ...] = ("fine_tuning.job.succeeded",),
) -> WebhookEndpoint:
    sealer = Sealer(get_settings())
    return webhooks.create(db, sealer, project_id, name="hook", url=url, event_types=types).endpoint
