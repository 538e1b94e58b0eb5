"""What a training notes of itself for its card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cards.canonical import digest, digest_of_rows
from app.cards.models import RunCard
from app.events.models import JobEvent
from app.jobs.status import Claim, LeaseLost
from methods.rows import Row
from methods.train_config import TrainConfig
from tests.workers.rows import make_job
from workers.jobs import provenance
from workers.jobs.job_data import DataFile


def config_of(folder: Path) -> TrainConfig:
    run = {
        "prompts_per_step": 2,
        "group_size": 2,
        "max_completion_tokens": 4,
        "n_epochs": 1,
        "eval_interval": 1,
    }
    return TrainConfig(model="m", model_path=str(folder), seed=1, learning_rate=1e-3, device="cpu", **run)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name, data in {"model.safetensors": b"w", "config.json": b"{}", ".lock": b"", "onnx/x": b""}.items():
        (tmp_path / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "base" / name).write_bytes(data)
    return tmp_path / "base"


def test_data_and_base_are_noted_once_and_every_attempt_its_place(db: Session, base: Path) -> None:
    job = make_job(db, status="running", attempt=1)
    rows = [Row(1, {"b": 1.0, "a": "x"})]
    file = DataFile("training_file", "file-1 (t.jsonl)", "key", "5" * 64)
    provenance.note(Claim(job.id, 1, "running"), config_of(base), [(file, rows)])
    (base / "config.json").write_text("changed")
    job.attempt = 2
    db.commit()
    for _ in range(2):  # a worker that repeats itself adds nothing
        provenance.note(Claim(job.id, 2, "running"), config_of(base), [(file, rows)])
    facts = db.scalars(select(RunCard.facts).where(RunCard.job_id == job.id)).one()
    assert facts is not None
    assert facts["data"]["training_file"] == {
        "name": "file-1 (t.jsonl)",
        "sha256": "5" * 64,
        "rows": 1,
        "rows_sha256": digest_of_rows([{"a": "x", "b": 1}]),
    }
    files = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in (("model.safetensors", b"w"), ("config.json", b"{}"))
    }
    assert facts["base_model"] == {"name": "m", "files": files, "sha256": digest(files)}
    assert [each["attempt"] for each in facts["attempts"]] == [1, 2]
    told = db.scalars(select(JobEvent.message).where(JobEvent.key.startswith("device-"))).all()
    assert len(told) == 2
    assert told[0].startswith(f"Training on {provenance.cpu_name()}, torch 2.")
    assert facts["attempts"][0]["device"] == "cpu"
    assert {"python", "torch", "transformers", "peft", "cherry"} <= facts["attempts"][0]["versions"].keys()


def test_an_attempt_that_lost_its_job_notes_nothing(db: Session, base: Path) -> None:
    job = make_job(db, status="running", attempt=2)
    with pytest.raises(LeaseLost):
        provenance.note(Claim(job.id, 1, "running"), config_of(base), [])
    assert db.scalars(select(RunCard)).all() == []


def test_a_gpu_is_told_with_its_memory_driver_and_cuda() -> None:
    place = {"device_name": "NVIDIA H200", "device_memory_bytes": 143771 << 20, "driver": "580.65.06"}
    told = provenance.sentence({**place, "cuda": "13.0", "processes": 2, "versions": {"torch": "2.11.0"}})
    assert told == "Training on 2 x NVIDIA H200 (140 GiB), driver 580.65.06, CUDA 13.0, torch 2.11.0"
