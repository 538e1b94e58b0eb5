"""A checkpoint with what our sampler says of it, to hold what others load against."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import httpx2 as httpx
import torch
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.jobs.models import Job
from app.storage import get_storage
from methods.rows import Row
from methods.train_config import TrainConfig
from tests.app.exports.taken import NANO, path_of
from tests.factories import Tenant, make_checkpoint, make_job
from workers.training.checkpoints import make_checkpoint as engine_checkpoint
from workers.training.checkpoints import save_checkpoint
from workers.training.evaluate import Estimate
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.sampling.rollout import Sampling, sample_groups

QUESTIONS = ("Say hello.", "Sort: pear, fig", "What is 2 plus 3?", "Spell: cat", "Repeat: red")
MOST_TOKENS = 40


class Made(NamedTuple):
    """A stored checkpoint, and greedy answers to `QUESTIONS`: of the adapter, and of the merged weights."""

    job: Job
    checkpoint: Checkpoint
    adapter_says: list[str]
    merged_says: list[str]


def make_trained(db: Session, tenant: Tenant, model: str, folder: Path) -> Made:
    """A checkpoint of a job from the built-in model, whose adapter is as if it were trained."""
    policy = _policy()
    adapter_says = _says(policy)
    with policy.as_delivered():
        merged_says = _says(policy)
    save_checkpoint(policy, engine_checkpoint(folder, 1, 1, Estimate(0.1, 0.01, 8), None))
    config = {"lora_rank": 16, "temperature": 1.0}
    job = make_job(db, tenant.project_id, status="succeeded", model=model, config=config)
    manifest = json.loads((folder / "manifest.json").read_text())
    checkpoint = make_checkpoint(db, job, 1, manifest=manifest)
    get_storage().publish_folder(folder, str(checkpoint.storage_key))
    db.commit()
    return Made(job, checkpoint, adapter_says, merged_says)


def _policy() -> Policy:
    fields = {
        "model": "cherry-nano",
        "model_path": str(NANO),
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": 1,
    }
    how = {"group_size": 2, "max_completion_tokens": MOST_TOKENS, "learning_rate": 1e-3, "device": "cpu"}
    saved = {"eval_interval": 1, "save_state_every": 1, "kl_probe_size": 4}
    policy = Policy.load(TrainConfig(**{**fields, **how, **saved, "lora_rank": 16, "lora_alpha": 32.0}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    policy.sync_rollout()
    return policy


def _says(policy: Policy) -> list[str]:
    rows = [
        Row(line=i + 1, item={"messages": [{"role": "user", "content": text}]})
        for i, text in enumerate(QUESTIONS)
    ]
    prompts = make_prompts(rows, policy.tokenizer, policy.context, "validation")
    groups = sample_groups(policy, prompts, Sampling(1, MOST_TOKENS, 0.0, ("greedy",)))
    return [group.completions[0].text for group in groups]


def unpack(http: httpx.Client, made: Made, form: str, folder: Path) -> Path:
    """Downloads a form and unpacks it as tar does."""
    answer = http.get(path_of(made.job, made.checkpoint, form))
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        tar.extractall(folder, filter="data")
    return folder
