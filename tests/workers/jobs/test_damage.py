"""What was stored has changed: it is noticed, named, and never used."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobEvent, JobMetrics
from app.files.models import File
from app.jobs import capacity, runs
from app.jobs.models import Job
from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage
from tests.damage import flip_last_bit
from tests.workers.rows import data_rows, fresh, make_job
from tests.workers.trainings import reached
from workers.jobs import run
from workers.jobs.attempt import train_next
from workers.jobs.db_recorder import states_to_resume
from workers.jobs.faults import Exit
from workers.jobs.validators import validate_all
from workers.training.folders import publish

pytestmark = pytest.mark.slow


def validated(db: Session, **values: object) -> Job:
    job = make_job(db, validation=data_rows(2), **values)  # type: ignore[arg-type]
    assert validate_all("me", threading.Event())
    return fresh(db, job)


def events(db: Session, job: Job) -> list[str]:
    db.rollback()
    query = select(JobEvent.message).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
    return list(db.scalars(query))


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_file_that_was_cut_after_validation_fails_the_job_at_once(
    db: Session, tiny_model: Path, param: str
) -> None:
    job = validated(db)
    assert job.status == "queued"
    file_id = getattr(job, param)
    path = get_storage().local_path(db.get_one(File, file_id).storage_key)
    assert path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))  # whole rows: only the sum tells
    offered = capacity.of_this_machine(get_settings())
    claim = runs.claim_for_training(db, "me", timedelta(seconds=30), offered)
    db.commit()
    assert claim
    assert run._run(claim, lambda: False, "cpu") is Exit.OUTCOME_WRITTEN  # type: ignore[arg-type]
    error = fresh(db, job).error
    assert job.status == "failed"
    assert error
    assert (error["code"], job.attempt) == (f"invalid_{param}", claim.attempt)
    assert file_id in error["message"]
    assert "has changed in storage since it was uploaded" in error["message"]


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "adapter/a"])
def test_a_tuned_model_with_one_bit_flipped_is_no_base(
    db: Session, tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    def write(folder: Path) -> None:
        shutil.copytree(tiny_folder, folder / "model")
        (folder / "adapter").mkdir()
        (folder / "adapter" / "a").write_text("a")

    publish(tmp_path / "checkpoint", write, {})
    prefix = "jobs/ftjob-a/checkpoints/1-1"
    get_storage().publish_folder(tmp_path / "checkpoint", prefix)
    db.add(Model(id="model_a", name="tuned", storage_key=prefix))
    job = validated(db, model="tuned")
    assert job.status == "queued", job.error
    flip_last_bit(f"{prefix}/{name}")
    job = validated(db, model="tuned")
    assert job.error
    assert (job.status, job.error["code"], job.error["param"]) == ("failed", "model_invalid", "model")
    assert f"The model tuned cannot be used: {name} has changed" in job.error["message"]


@pytest.mark.long
@pytest.mark.parametrize("damage", ["one-bit", "folder-gone"])
def test_a_training_goes_on_from_the_older_state_when_the_newest_is_damaged(
    db: Session, tiny_model: Path, damage: str
) -> None:
    job = validated(db, hyperparameters={"n_epochs": 10, "eval_interval": 4})
    job_id, stopping = job.id, threading.Event()
    watcher = threading.Thread(target=_set_at_step, args=(job_id, 10, stopping))
    watcher.start()
    assert train_next("me", stopping)
    watcher.join()
    newest = fresh(db, job).state_step
    assert newest
    states = states_to_resume(get_storage(), job_id, newest)
    older = list(states)[1]
    if damage == "one-bit":
        flip_last_bit(f"{states[newest]}/trained.safetensors")
    else:
        get_storage().delete_prefix(states[newest])
    assert train_next("me", threading.Event())
    told = events(db, job)
    assert fresh(db, job).status == "succeeded", told
    assert f"Resumed after step {older}." in told
    if damage == "one-bit":
        assert any("trained.safetensors has changed since it was written" in message for message in told)
    else:
        lost = f"The training state of step {newest} is gone from storage; "
        assert f"{lost}the training goes on from step {older} instead." in told
    assert list(db.scalars(select(JobMetrics.step).order_by(JobMetrics.step))) == list(range(21))


def _set_at_step(job_id: str, step: int, event: threading.Event) -> None:
    while not reached(job_id, step):
        if event.wait(0.05):
            return
    event.set()
