"""Checkpoints to take home, for tests: a job from the built-in model, with an adapter and a merged model."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx2 as httpx
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.jobs.models import Job
from app.models import service as models
from tests.factories import Tenant, make_checkpoint, make_job

NANO = Path(__file__).parents[3] / "workers" / "models" / "cherry_nano"
GENERATION = {"eos_token_id": [2, 3], "pad_token_id": 0, "top_k": 20, "repetition_penalty": 1.1}
LORA = {
    "base_model_name_or_path": "cherry-nano",
    "r": 16,
    "revision": None,
    "target_modules": ["v_proj", "q_proj", "o_proj"],
    "target_parameters": ["b", "a"],
}
FILES = {
    "adapter/adapter_config.json": json.dumps(LORA).encode(),
    "adapter/adapter_model.safetensors": b"a" * 3000,
    "adapter/chat_template.jinja": b"{{ messages }}",
    "adapter/generation_config.json": json.dumps(GENERATION).encode(),
    "model/additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    "model/chat_template.jinja": b"{{ messages }}",
    "model/config.json": b'{"dtype": "bfloat16"}',
    "model/generation_config.json": json.dumps(GENERATION).encode(),
    "model/model.safetensors": b"m" * 5000,
}


def add_base(db: Session, name: str, folder: Path, **origin: Any) -> None:
    """A base model as an operator adds it."""
    known = {"folder": str(folder), "source": None, "revision": None, "weights": {}, "template": None}
    models.add_base_model(db, name, folder, origin=known | origin if origin else None)


def make_taken(
    db: Session, tenant: Tenant, files: dict[str, bytes] | None = None, **columns: Any
) -> tuple[Job, Checkpoint]:
    """A job that is over, and its one checkpoint. The job's base has to be there."""
    values = {"status": "succeeded", "config": {"lora_rank": 16, "temperature": 1.0}}
    job = make_job(db, tenant.project_id, **values | columns)
    checkpoint = make_checkpoint(db, job, 7, FILES if files is None else files)
    db.commit()
    return job, checkpoint


def path_of(job: Job, checkpoint: Checkpoint, form: str | None = None) -> str:
    path = f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download"
    return path if form is None else f"{path}?format={form}"


def unpacked(response: httpx.Response) -> dict[str, bytes]:
    """The files of a download, by name."""
    assert response.status_code == 200, response.text
    found = {}
    with tarfile.open(fileobj=io.BytesIO(response.content)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found
